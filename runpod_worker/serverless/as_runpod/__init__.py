"""Lets `import runpod` import this package, even if RunPod's SDK is installed.

runpod  a package that replaces the SDK's

With this folder on PYTHONPATH, every Python process finds that package before installed ones, child processes
of the handler included. It aliases `runpod_worker`: `runpod.serverless.utils` *is*
`runpod_worker.serverless.utils`.
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


class RunpodModule(ModuleType):
    """The module `runpod`: reads and assignments go to `runpod_worker`, except for the version."""

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
    """Finds `runpod_worker.X` for `runpod.X`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(f"{NAME}."):
            return None
        ours = f"{runpod_worker.__name__}.{fullname.removeprefix(f'{NAME}.')}"
        if find_spec(ours) is None:
            raise ModuleNotFoundError(
                f"No module named {fullname!r}: runpod_worker replaces the SDK here, and has no such module",
                name=fullname,
            )
        return ModuleSpec(fullname, Alias(ours), is_package=True)


class Alias(Loader):
    """Loads a module under a second name."""

    def __init__(self, ours: str) -> None:
        self._ours = ours
        self._spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = import_module(self._ours)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # the import system has replaced it


def install() -> None:
    """Make `runpod` an alias of `runpod_worker` in this process."""
    module = RunpodModule(NAME, runpod_worker.__doc__)
    module.__path__ = []
    module.__file__ = runpod_worker.__file__
    sys.modules[NAME] = module
    if not any(isinstance(finder, Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, Finder())
