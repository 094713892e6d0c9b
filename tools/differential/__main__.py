"""`python -m tools.differential`: run both, print the table, write docs/compatibility.md and reference.json.

Exit status 1 when a difference is not listed, or a listed one has gone.
"""

from __future__ import annotations

import asyncio
import sys

from .page import PAGE, RECORDED, page, save_reference, surprises, table
from .running import REFERENCE, compare, reference_python


def main() -> int:
    comparison = asyncio.run(compare(reference_python()))
    print(table(comparison))
    wrong = surprises(comparison)
    if wrong:
        print("", *wrong, "", "docs/compatibility.md is not written: see tools/differential/differences.py", sep="\n")
        return 1
    PAGE.write_text(page(comparison, REFERENCE.partition("==")[2]), encoding="utf-8")
    save_reference(comparison.reference)
    print(f"wrote {PAGE.name} and {RECORDED.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
