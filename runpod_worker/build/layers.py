"""The size of each layer of an image, and the line of the Dockerfile that made it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MIB = 2**20
MAX_LINE_CHARS = 100


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: its bytes on disk, and the Dockerfile line that made it."""

    size: int
    made_by: str


def from_history(text: str) -> list[Layer]:
    """Parse the output of `docker history` or `podman history`: newest first, lines of size, tab, command."""
    rows = [line.partition("\t") for line in text.splitlines() if line.strip()]
    return [Layer(_bytes(size), _readable(made_by)) for size, _, made_by in reversed(rows)]


def from_storage(image: str, info: str) -> list[Layer]:
    """Parse the output of `buildah inspect` and `buildah info`; the sizes come from the storage's list of layers."""
    store = json.loads(info)["store"]
    driver = store["GraphDriverName"]
    stored = json.loads((Path(store["GraphRoot"]) / f"{driver}-layers" / "layers.json").read_text(encoding="utf-8"))
    sizes = {layer.get("diff-digest"): layer.get("diff-size", 0) for layer in stored}
    spec = json.loads(image)["OCIv1"]
    digests = iter(spec["rootfs"]["diff_ids"])
    return [
        Layer(0 if step.get("empty_layer") else sizes.get(next(digests), 0), _readable(step.get("created_by", "")))
        for step in spec["history"]
    ]


def layer_table(layers: Sequence[Layer]) -> str:
    """A line for each layer that is not empty, and their sum."""
    lines = [f"{_size(layer.size):>10}  {layer.made_by}" for layer in layers if layer.size]
    return "\n".join([*lines, f"{_size(sum(layer.size for layer in layers)):>10}  in total"])


def _bytes(size: str) -> int:
    """Parse a size. docker honours `--human=false` and prints `1048576`; podman prints `1.05 MB` anyway."""
    match = re.fullmatch(r"([\d.]+) ?([kMGT]?)B?", size.strip())
    return round(float(match[1]) * 1000 ** " kMGT".index(match[2] or " ")) if match else 0


def _size(size: int) -> str:
    if size >= 1024 * MIB:
        return f"{size / (1024 * MIB):.2f} GiB"
    return f"{size / MIB:.1f} MiB" if size >= MIB // 10 else f"{size / 1024:.1f} KiB"


def _readable(made_by: str) -> str:
    """Strip the builder's decoration from a line such as `|2 A=1 B= /bin/sh -c #(nop) COPY x in y`."""
    line = re.sub(r"^\|\d+ .*?(?=/bin/sh -c )", "", " ".join(made_by.split()))
    line = re.sub(r"^/bin/sh -c #\(nop\) +", "", line)
    line = re.sub(r"^/bin/sh -c ", "RUN ", line).removesuffix(" # buildkit")
    line = re.sub(r"\b(file|dir|multi):([0-9a-f]{8})[0-9a-f]+", r"\1:\2", line)
    return line if len(line) <= MAX_LINE_CHARS else line[: MAX_LINE_CHARS - 1] + "…"
