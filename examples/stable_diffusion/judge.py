"""Names the colour, the shape and the background in a picture of the demo model, without its prompt.

A colour gets the name of the nearest colour in the palette, a shape that of the outline that it overlaps most.
Without a near match the name is "unclear".
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - the name every torch user knows
from PIL import Image
from shapes import COLOURS, SHAPES, Scene, draw

UNCLEAR = "unclear"
FAR_COLOUR = 0.2  # RGB distance, 0..1.7; the two nearest colours of the palette are 0.36 apart
POOR_OVERLAP = 0.7  # no two shapes but circle and square (0.78) overlap more than 0.6
OUTLINE = 48  # pixels


class Seen(NamedTuple):
    """The content of a picture."""

    colour: str
    shape: str
    ground: str


def look(image: Image.Image) -> Seen:
    """Name the colour and the shape in the picture, and the background they are on."""
    data = torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8)
    pixels = data.reshape(image.height, image.width, 3) / 255
    frame = _frame(image.height, image.width)
    ground = pixels[frame].median(0).values
    from_ground = (pixels - ground).norm(dim=2)
    contrast = from_ground.quantile(0.95)  # every shape covers well over 5 %
    if contrast < FAR_COLOUR:
        return Seen(UNCLEAR, UNCLEAR, _name(ground))
    colour = pixels[from_ground > contrast / 2].median(0).values
    mask = ((pixels - colour).norm(dim=2) < from_ground) & ~frame  # ignore specks at the border
    return Seen(_name(colour), _shape(mask), _name(ground))


def _frame(height: int, width: int, thickness: int = 3) -> torch.Tensor:
    frame = torch.ones((height, width), dtype=torch.bool)
    frame[thickness:-thickness, thickness:-thickness] = False
    return frame


def _name(colour: torch.Tensor) -> str:
    distance, name = min((float((colour - torch.tensor(rgb)).norm()), name) for name, rgb in COLOURS.items())
    return name if distance < FAR_COLOUR else UNCLEAR


def _shape(mask: torch.Tensor) -> str:
    outline = _fitted(mask)
    overlap, name = max((_overlap(outline, ideal), name) for name, ideal in _ideals().items())
    return name if overlap > POOR_OVERLAP else UNCLEAR


def _fitted(mask: torch.Tensor) -> torch.Tensor:
    """The mask, cropped and scaled to a fixed size, so that place and size do not matter."""
    rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
    cut = mask[int(rows[0]) : int(rows[-1]) + 1, int(columns[0]) : int(columns[-1]) + 1]
    height, width = cut.shape
    side, beside, above = max(height, width), max(0, height - width) // 2, max(0, width - height) // 2
    square = F.pad(cut, (beside, side - width - beside, above, side - height - above))
    return F.interpolate(square[None, None].float(), (OUTLINE, OUTLINE), mode="bilinear")[0, 0] > 0.5


@functools.cache
def _ideals() -> dict[str, torch.Tensor]:
    return {shape: _fitted(draw([Scene("white", shape, "black")], size=192)[0, 0] > 0) for shape in SHAPES}


def _overlap(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a & b).sum() / (a | b).sum())
