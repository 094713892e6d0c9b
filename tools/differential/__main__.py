"""`python -m tools.differential`: run both, print the table, write docs/compatibility.md. Exit code 1 for surprises."""

from __future__ import annotations

import asyncio
import sys

from .page import PAGE, page, surprises, table
from .running import REFERENCE, compare, reference_python


def main() -> int:
    found = asyncio.run(compare(reference_python()))
    print(table(found))
    wrong = surprises(found)
    if wrong:
        print("", *wrong, "", "docs/compatibility.md is left as it is: see tools/differential/differences.py", sep="\n")
        return 1
    PAGE.write_text(page(found, REFERENCE.partition("==")[2]), encoding="utf-8")
    print(f"wrote {PAGE.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
