"""What each layer of an image weighs, and which line of the Dockerfile made it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MIB = 2**20
WIDTH = 100


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: its bytes on disk, and the line that made it."""

    size: int
    made_by: str


def from_history(text: str) -> list[Layer]:
    """From `docker history` or `podman history`, newest first: lines of size, tab, command."""
    found = [line.partition("\t") for line in text.splitlines() if line.strip()]
    return [Layer(_bytes(size), _readable(made_by)) for size, _, made_by in reversed(found)]


def from_storage(image: str, info: str) -> list[Layer]:
    """From `buildah inspect` and `buildah info`: the sizes stand in the storage's own list of layers."""
    store = json.loads(info)["store"]
    driver = store["GraphDriverName"]
    stored = json.loads((Path(store["GraphRoot"]) / f"{driver}-layers" / "layers.json").read_text(encoding="utf-8"))
    sizes = {one.get("diff-digest"): one.get("diff-size", 0) for one in stored}
    spec = json.loads(image)["OCIv1"]
    digests = iter(spec["rootfs"]["diff_ids"])
    return [
        Layer(0 if step.get("empty_layer") else sizes.get(next(digests), 0), _readable(step.get("created_by", "")))
        for step in spec["history"]
    ]


def table(layers: Sequence[Layer]) -> str:
    """The layers that weigh something, one a line, and their sum."""
    lines = [f"{_size(one.size):>10}  {one.made_by}" for one in layers if one.size]
    return "\n".join([*lines, f"{_size(sum(one.size for one in layers)):>10}  in all"])


def _bytes(size: str) -> int:
    """`1048576` is docker's answer to the wish for plain numbers; podman says `1.05 MB` all the same."""
    found = re.fullmatch(r"([\d.]+) ?([kMGT]?)B?", size.strip())
    return round(float(found[1]) * 1000 ** " kMGT".index(found[2] or " ")) if found else 0


def _size(size: int) -> str:
    if size >= 1024 * MIB:
        return f"{size / (1024 * MIB):.2f} GiB"
    return f"{size / MIB:.1f} MiB" if size >= MIB // 10 else f"{size / 1024:.1f} KiB"


def _readable(made_by: str) -> str:
    """`|2 A=1 B= /bin/sh -c #(nop) COPY x in y` without the engine's own words."""
    line = re.sub(r"^\|\d+ .*?(?=/bin/sh -c )", "", " ".join(made_by.split()))
    line = re.sub(r"^/bin/sh -c #\(nop\) +", "", line)
    line = re.sub(r"^/bin/sh -c ", "RUN ", line).removesuffix(" # buildkit")
    line = re.sub(r"\b(file|dir|multi):([0-9a-f]{8})[0-9a-f]+", r"\1:\2", line)
    return line if len(line) <= WIDTH else line[: WIDTH - 1] + "…"
