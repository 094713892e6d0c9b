"""Draws the samples of a soak as SVG: one small diagram for each role and measure."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

WIDTH, HEIGHT, GAP = 260, 110, 40
TITLES = {"memory_mib": "memory, MiB", "threads": "threads", "descriptors": "file descriptors"}


def draw(samples: Mapping[str, Mapping[str, list[float]]]) -> str:
    """Return the picture; each diagram begins at 0 and ends at the highest value, one sample a second."""
    parts = []
    for row, (role, measures) in enumerate(samples.items()):
        for column, (measure, values) in enumerate(measures.items()):
            x, y = GAP + column * (WIDTH + GAP), GAP + row * (HEIGHT + GAP)
            parts.append(_diagram(f"{role}: {TITLES[measure]}", values, x, y))
    width, height = GAP + 3 * (WIDTH + GAP), GAP + len(samples) * (HEIGHT + GAP)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
        f'font-size="11"><rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>\n'
    )


def _diagram(title: str, values: list[float], x: int, y: int) -> str:
    top = max(values, default=0) or 1
    step = WIDTH / max(1, len(values) - 1)
    points = " ".join(f"{x + n * step:.1f},{y + HEIGHT - value / top * HEIGHT:.1f}" for n, value in enumerate(values))
    return (
        f'<text x="{x}" y="{y - 8}">{escape(title)}: {values[-1] if values else 0:.0f} at the end, {top:.0f} at most, '
        f"{len(values)} s</text>"
        f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#bbb"/>'
        f'<polyline points="{points}" fill="none" stroke="#2266cc" stroke-width="1.2"/>'
    )
