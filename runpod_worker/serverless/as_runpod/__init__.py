"""`import runpod` that gets this package, whether or not RunPod's SDK is installed.

The folder of this file holds a package `runpod`. With that folder on PYTHONPATH every Python process finds it before
anything installed, the handler's own child processes too. When it is imported it hands over to `runpod_worker`:
`runpod.serverless.utils` then *is* `runpod_worker.serverless.utils`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import runpod_worker
from runpod_worker.core.protocol import SDK_VERSION

FOLDER = Path(__file__).parent
NAME = "runpod"


class Face(ModuleType):
    """The module `runpod`: what is read from it or assigned to it is `runpod_worker`'s, but for the version."""

    __version__ = SDK_VERSION
    __all__ = runpod_worker.__all__

    def __getattr__(self, name: str) -> object:
        return getattr(runpod_worker, name)

    def __setattr__(self, name: str, value: object) -> None:
        if name.startswith("__"):
            super().__setattr__(name, value)
        else:
            setattr(runpod_worker, name, value)

    def __dir__(self) -> list[str]:
        return dir(runpod_worker)


class Finder(MetaPathFinder):
    """Finds `runpod.X` in `runpod_worker.X`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(f"{NAME}."):
            return None
        ours = f"{runpod_worker.__name__}.{fullname.removeprefix(f'{NAME}.')}"
        if find_spec(ours) is None:
            raise ModuleNotFoundError(
                f"No module named {fullname!r}: runpod_worker stands for the SDK here, and has no such part",
                name=fullname,
            )
        return ModuleSpec(fullname, Alias(ours), is_package=True)


class Alias(Loader):
    """Loads a module that has another name."""

    def __init__(self, ours: str) -> None:
        self._ours = ours
        self._spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = import_module(self._ours)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # the import system has just given it the other name's


def install() -> None:
    """Make `runpod` stand for `runpod_worker` in this process."""
    face = Face(NAME, runpod_worker.__doc__)
    face.__path__ = []
    face.__file__ = runpod_worker.__file__
    sys.modules[NAME] = face
    if not any(isinstance(finder, Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, Finder())
