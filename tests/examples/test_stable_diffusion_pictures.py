"""The example draws its prompts, and the judge recognizes drawn scenes."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from PIL import Image, ImageChops, ImageStat

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("stable_diffusion")]


def to_image(picture: torch.Tensor) -> Image.Image:
    pixels = ((picture + 1) * 127.5).round().byte().permute(1, 2, 0).contiguous()
    return Image.frombytes("RGB", (pixels.shape[1], pixels.shape[0]), bytes(pixels.flatten().tolist()))


def difference(a: Image.Image, b: Image.Image) -> float:
    """The mean difference of two pictures, in steps of 1/255."""
    return sum(ImageStat.Stat(ImageChops.difference(a, b)).mean) / 3


def test_judge_names_what_was_drawn() -> None:
    import judge
    import shapes

    rng = random.Random(11)
    scenes = [shapes.random_scene(rng) for _ in range(400)]

    right = [
        judge.look(to_image(picture)) == (scene.colour, scene.shape, scene.ground)
        for scene, picture in zip(scenes, shapes.draw(scenes), strict=True)
    ]

    assert sum(right) >= 0.995 * len(right)


def test_judge_sees_no_shape_where_there_is_none() -> None:
    import judge

    plain = torch.full((3, 96, 96), 0.9)
    noise = torch.rand((3, 96, 96), generator=torch.Generator().manual_seed(1)) * 2 - 1
    bar = plain.clone()
    bar[:, 30:60, 10:90] = -0.9

    assert {judge.look(to_image(picture)).shape for picture in (plain, noise, bar)} == {judge.UNCLEAR}


def test_pictures_show_what_the_prompt_says(studio: Any) -> None:
    import judge
    import shapes

    scenes = random.Random(48).sample(shapes.SCENES, 20)

    seen = [judge.look(studio.draw(scene.prompt(), steps=10, seed=number)[0]) for number, scene in enumerate(scenes)]

    wrong = {
        scene.prompt(): names
        for scene, names in zip(scenes, seen, strict=True)
        if names != (scene.colour, scene.shape, scene.ground)
    }
    assert len(wrong) <= 0.05 * len(scenes), wrong


def test_same_seed_draws_the_same_picture(studio: Any) -> None:
    first, again = (studio.draw("a red circle", seed=5, steps=8)[0] for _ in range(2))

    assert first.tobytes() == again.tobytes()


def test_other_seed_draws_another_picture(studio: Any) -> None:
    pictures = [studio.draw("a red circle", seed=seed, steps=8)[0] for seed in (5, 6)]

    assert difference(*pictures) > 1


def test_one_picture_of_several_can_be_drawn_again_by_its_seed(studio: Any) -> None:
    output, attempt = studio.run(prompt="a pink star on a black background", num_images=3, seed=40, steps=8)

    alone = studio.draw("a pink star on a black background", seed=output[2]["seed"], steps=8)[0]

    assert [picture["seed"] for picture in output] == [40, 41, 42]
    assert difference(alone, attempt.saved[output[2]["image"]]) < 1  # a batch adds up in another order


def test_without_a_seed_every_picture_is_new(studio: Any) -> None:
    seeds = {studio.run(prompt="a circle", steps=1)[0][0]["seed"] for _ in range(2)}

    assert len(seeds) == 2


def test_progress_counts_every_step(studio: Any) -> None:
    _, attempt = studio.run(prompt="a circle", steps=4)

    assert attempt.reported == [{"step": step, "steps": 4} for step in (1, 2, 3, 4)]


def test_cancelled_job_stops_at_the_next_step_and_saves_nothing(studio: Any) -> None:
    _, attempt = studio.run(prompt="a circle", steps=50, cancel_after=2)

    assert len(attempt.reported) == 2
    assert attempt.saved == {}


def test_job_after_a_cancelled_one_draws_as_ever(studio: Any) -> None:
    before = studio.draw("a red circle", seed=5, steps=8)[0]
    studio.run(prompt="a circle", steps=50, cancel_after=2)

    after = studio.draw("a red circle", seed=5, steps=8)[0]

    assert before.tobytes() == after.tobytes()


def test_pictures_have_the_asked_size(studio: Any) -> None:
    assert studio.draw("a circle", width=128, height=64, steps=1)[0].size == (128, 64)
