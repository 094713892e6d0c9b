"""`python -m tools.differential`: run both, print the table, write docs/compatibility.md and reference.json.

Exit status 1 when a difference is not listed, or a listed one has gone.
"""

from __future__ import annotations

import asyncio
import sys

from tools.compat_environments import REFERENCE_VERSION, install, python_of

from .page import PAGE, RECORDED, page, save_reference, surprises, table
from .running import compare


def main() -> int:
    install(REFERENCE_VERSION)
    comparison = asyncio.run(compare(python_of(REFERENCE_VERSION)))
    print(table(comparison))
    wrong = surprises(comparison)
    if wrong:
        print("", *wrong, "", "docs/compatibility.md is not written: see tools/differential/differences.py", sep="\n")
        return 1
    PAGE.write_text(page(comparison, REFERENCE_VERSION), encoding="utf-8")
    save_reference(comparison.reference)
    print(f"wrote {PAGE.name} and {RECORDED.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
