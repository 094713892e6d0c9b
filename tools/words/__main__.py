"""`python -m tools.words`: report banned words and turns of phrase in prose, or banned words in names."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from .glossary import ROOT, load
from .names import all_findings
from .prose import Hit, files, hits, patterns


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.words", description=__doc__)
    parser.add_argument("paths", nargs="*", help="report files whose path begins with one of these; default: all")
    parser.add_argument("--lines", action="store_true", help="list every line, not only the count of each file")
    parser.add_argument("--names", action="store_true", help="list the names that contain banned words, not the prose")
    options = parser.parse_args()
    if options.names:
        chosen = [finding for finding in all_findings(load()) if _in(finding.path, options.paths)]
        print(*chosen, sep="\n")
        print(f"{len(chosen)} names")
    else:
        _report([path for path in files() if _in(path.relative_to(ROOT).as_posix(), options.paths)], options.lines)


def _in(path: str, prefixes: list[str]) -> bool:
    return not prefixes or any(path.startswith(prefix) for prefix in prefixes)


def _report(paths: list[Path], lines: bool) -> None:
    looked_for = patterns(load())
    every: list[Hit] = [hit for path in paths for hit in hits(path, looked_for)]
    for path, count in Counter(hit.path for hit in every).most_common():
        print(f"{count:4}  {path}")
        if lines:
            of_path = (hit for hit in every if hit.path == path)
            print(*(f"      {hit.line}: {hit.phrase} -> {hit.advice}" for hit in sorted(of_path)), sep="\n")
    print(f"{len(every)} phrases in {len({hit.path for hit in every})} of {len(paths)} files")


if __name__ == "__main__":
    main()
