"""Draws the life of a job from the table of `core.lifecycle`, in mermaid, into the README. `make docs` runs it."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from runpod_worker.core.job import Status
from runpod_worker.core.lifecycle import TRANSITIONS

README = Path(__file__).resolve().parents[1] / "README.md"

BLOCK = re.compile(r"```mermaid\nstateDiagram-v2\n.*?```\n", re.DOTALL)


def diagram() -> str:
    """The fenced block for the README. An event that leaves the status as it is, is not drawn."""
    events: dict[tuple[Status, Status], list[str]] = defaultdict(list)
    for (source, event), transition in TRANSITIONS.items():
        for target in transition.leads_to - {source}:
            events[source, target].append(_words(event.__name__))
    order = list(Status)
    edges = sorted(events, key=lambda edge: (order.index(edge[0]), order.index(edge[1])))
    lines = [f"    {source} --> {target}: {', '.join(events[source, target])}" for source, target in edges]
    return "\n".join(["```mermaid", "stateDiagram-v2", "    [*] --> IN_QUEUE: submitted", *lines, "```", ""])


def readme_with_diagram(text: str) -> str:
    """The text of the README, with the diagram as the table has it now."""
    return BLOCK.sub(lambda _: diagram(), text, count=1)


def main() -> None:
    """Write the README."""
    README.write_text(readme_with_diagram(README.read_text(encoding="utf-8")), encoding="utf-8")


def _words(name: str) -> str:
    """`LeaseExpired` as "lease expired"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()


if __name__ == "__main__":
    main()
