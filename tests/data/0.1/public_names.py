"""Prints what release 0.1 lets users import: `module` or `module:name` a line. Run it in a checkout of 0.1.

What counts: `runpod_worker.__all__`, everything under the names of RunPod's SDK, and the modules whose paths or files
README.md, CHANGELOG.md, docs, templates and examples mention.
"""

import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType

from msgspec import StructMeta

import runpod_worker

PAGES = ["README.md", "CHANGELOG.md", *sorted(map(str, Path("docs").glob("*.md")))]
EXAMPLES = [str(path) for folder in ("templates", "examples") for path in sorted(Path(folder).rglob("*.*"))]
SDK = ["endpoint", "endpoint.asyncio", "endpoint.asyncio.asyncio_runner", "endpoint.runner", "http_client"]
SDK += ["serverless", "serverless.modules", "serverless.utils"]


def mentioned() -> set[str]:
    """The modules that the pages name, as `runpod_worker.a.b` or as a file."""
    modules = set()
    for page in PAGES + EXAMPLES:
        text = Path(page).read_text(errors="ignore")
        modules |= set(re.findall(r"\brunpod_worker(?:\.\w+)+", text))
        modules |= {path.replace("/", ".") for path in re.findall(r"\b(runpod_worker(?:/\w+)+)\.py", text)}
    return {name for name in modules if is_module(name)}


def is_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def sdk_modules() -> list[str]:
    modules = [f"runpod_worker.{name}" for name in SDK]
    for package in ("serverless.modules", "serverless.utils"):
        folder = Path(runpod_worker.__file__).parent / package.replace(".", "/")
        modules += [f"runpod_worker.{package}.{path.stem}" for path in sorted(folder.glob("rp_*.py"))]
    return modules


def names(module: str) -> list[str]:
    """The public names of a module."""
    loaded = import_module(module)
    if hasattr(loaded, "__all__"):
        return sorted(loaded.__all__)
    defined = {name: value for name, value in vars(loaded).items() if getattr(value, "__module__", "") == module}
    code = {name for name, value in defined.items() if isinstance(value, FunctionType | type)}
    return sorted(name for name in code if not name.startswith("_") and not isinstance(defined[name], StructMeta))


lines = {f"runpod_worker:{name}" for name in names("runpod_worker")}
for module in sorted({*sdk_modules(), "runpod_worker.worker.openai"}):
    lines |= {f"{module}:{name}" for name in names(module)} | {module}
print("\n".join(sorted(lines | mentioned())))
