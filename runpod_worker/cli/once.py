"""`python -m runpod_worker.cli.once FILE ...` is `python FILE ...`, but fails if the file ends without a worker."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path


def main() -> None:
    """Run the file as the main module. A worker that it starts exits this process."""
    del sys.argv[0]
    sys.path[0] = str(Path(sys.argv[0]).resolve().parent)
    runpy.run_path(sys.argv[0], run_name="__main__")
    sys.exit(
        f"error: {sys.argv[0]} ended without starting a worker, so nothing was tested; "
        "end the file with worker.start(), or with runpod.serverless.start({'handler': handler})"
    )


if __name__ == "__main__":
    main()
