"""The package's first page says where each module belongs."""

from pathlib import Path

import runpod_worker.worker as package


def test_every_module_is_on_the_map() -> None:
    modules = {path.stem for path in Path(package.__file__).parent.glob("*.py")} - {"__init__"}
    words = set((package.__doc__ or "").replace(",", " ").replace("(", " ").split())

    assert modules - words == set()
