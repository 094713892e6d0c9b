"""The scenes of the demo model: a coloured shape on a plain background.

`draw` paints the training pictures, `Scene.prompt` describes them, `judge.py` recognizes them.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

SIZE = 96  # pixels; the VAE makes 12 x 12 latents of it

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.90, 0.10, 0.12),
    "orange": (1.00, 0.52, 0.05),
    "yellow": (1.00, 0.88, 0.10),
    "green": (0.10, 0.65, 0.25),
    "blue": (0.12, 0.30, 0.90),
    "purple": (0.52, 0.15, 0.72),
    "pink": (1.00, 0.50, 0.75),
    "white": (1.00, 1.00, 1.00),
    "gray": (0.50, 0.50, 0.50),
    "black": (0.04, 0.04, 0.04),
}
SHAPE_COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
GROUND_COLOURS = ("black", "white", "gray", "blue", "yellow")

# corners, inner radius / outer radius, turn, outer radius in units of `Scene.radius`
SHAPES: dict[str, tuple[int, float, float, float]] = {
    "circle": (0, 1.0, 0.0, 0.90),
    "square": (4, math.cos(math.pi / 4), math.pi / 4, 1.12),
    "triangle": (3, 0.5, 0.0, 1.25),
    "star": (5, 0.45, 0.0, 1.22),
}
FORMS = (
    "a {colour} {shape} on a {ground} background",
    "{colour} {shape} on a {ground} background",
    "a {colour} {shape} on {ground}",
    "{colour} {shape}, {ground} background",
    "a picture of a {colour} {shape} on a {ground} background",
    "the {colour} {shape} in front of the {ground} background",
    "drawing of one big {colour} {shape}, plain {ground} background, no text",
    "a photo of a {colour} {shape} on a {ground} background",
    "a {ground} background with a {colour} {shape}",
    "a {colour} {shape}",
    "{colour} {shape}",
    "a {shape} on a {ground} background",
)


@dataclass(frozen=True, slots=True)
class Scene:
    """The content of a picture."""

    colour: str
    shape: str
    ground: str
    x: float = SIZE / 2
    y: float = SIZE / 2
    radius: float = SIZE / 3

    def prompt(self, form: str = FORMS[0]) -> str:
        """A prompt for this scene."""
        text = form.format(colour=self.colour, shape=self.shape, ground=self.ground)
        return text.replace("a orange", "an orange")


# Every combination in which the shape differs from the background.
SCENES = tuple(
    Scene(colour, shape, ground)
    for shape in SHAPES
    for colour in SHAPE_COLOURS
    for ground in GROUND_COLOURS
    if colour != ground
)


def random_scene(rng: random.Random) -> Scene:
    """A scene somewhere near the middle of the picture."""
    return replace(
        rng.choice(SCENES),
        x=SIZE * rng.uniform(0.45, 0.55),
        y=SIZE * rng.uniform(0.45, 0.55),
        radius=SIZE * rng.uniform(0.28, 0.35),
    )


def draw(scenes: Sequence[Scene], size: int = SIZE) -> torch.Tensor:
    """Pictures of the scenes, (n, 3, size, size) in -1..1, with smooth edges one pixel wide."""
    alpha = torch.stack([_cover(scene, size) for scene in scenes])[:, None]
    colour = torch.tensor([COLOURS[scene.colour] for scene in scenes])[:, :, None, None]
    ground = torch.tensor([COLOURS[scene.ground] for scene in scenes])[:, :, None, None]
    return (alpha * colour + (1 - alpha) * ground) * 2 - 1


def _cover(scene: Scene, size: int) -> torch.Tensor:
    """How much of each pixel the shape covers, 0..1."""
    corners, inner, turn, scale = SHAPES[scene.shape]
    zoom = size / SIZE
    axis = torch.arange(size) + 0.5
    x, y = axis[None, :] - scene.x * zoom, axis[:, None] - scene.y * zoom
    far, outer = torch.hypot(x, y), scene.radius * scale * zoom
    if corners == 0:
        return (outer - far + 0.5).clamp(0, 1)
    # Fold the plane into half a spike. The outline is then one straight line,
    # from the tip (outer, 0) to the notch halfway between two tips.
    half = math.pi / corners
    angle = (torch.atan2(x, -y) + turn + half) % (2 * half) - half
    u, v = far * angle.cos() - outer, far * angle.abs().sin()
    notch_u, notch_v = outer * (inner * math.cos(half) - 1), outer * inner * math.sin(half)
    inside = (v * notch_u - u * notch_v) / math.hypot(notch_u, notch_v)
    return (inside + 0.5).clamp(0, 1)
