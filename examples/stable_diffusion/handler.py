"""Stable Diffusion as an API.

`runpod-worker run handler.py` serves the small model beside this file, or the checkpoint that the environment variable
MODEL names by hub id or folder.
"""

import copy
import os
import secrets
from pathlib import Path
from typing import Annotated, Any

import diffusers
import msgspec
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from msgspec import Meta
from packaging.version import Version

from runpod_worker import Job, Worker

MODEL = os.environ.get("MODEL") or str(Path(__file__).parent / "model")
SEEDS = 2**32

worker = Worker()

Side = Annotated[int, Meta(ge=64, le=2048, multiple_of=8)]


class Request(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The input of a job. The worker checks every field before the job reaches the GPU."""

    prompt: Annotated[str, Meta(min_length=1, pattern=r"\S")]  # not blank
    negative_prompt: str = ""
    steps: Annotated[int, Meta(ge=1, le=150)] = 25
    guidance: Annotated[float, Meta(ge=0, le=30)] = 3.0  # suits the small model; full checkpoints need about 7
    width: Side | None = None  # None: the size of the training pictures
    height: Side | None = None
    seed: Annotated[int, Meta(ge=0, lt=SEEDS)] | None = None  # None: random
    num_images: Annotated[int, Meta(ge=1, le=8)] = 1


@worker.model
def load(device: torch.device) -> StableDiffusionPipeline:
    """Load the checkpoint once, in the precision that suits the device."""
    # Name the precision: diffusers and transformers have different defaults for it.
    name = "dtype" if Version(diffusers.__version__) >= Version("0.42") else "torch_dtype"
    precision = torch.float16 if device.type == "cuda" else torch.float32
    pipe: StableDiffusionPipeline = DiffusionPipeline.from_pretrained(MODEL, **{name: precision})
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


@worker.warmup
def example() -> dict[str, Any]:
    """The input of a small run before the first job, so that the first job is as fast as the next."""
    return {"prompt": "a red circle", "steps": 2}


@worker.handler
def handler(job: Job[Request], pipe: StableDiffusionPipeline) -> list[dict[str, Any]]:
    """Draw `num_images` pictures. The seed of each draws that picture again."""
    request = job.input
    first = secrets.randbelow(SEEDS) if request.seed is None else request.seed
    seeds = [(first + number) % SEEDS for number in range(request.num_images)]

    def after_step(pipe: Any, step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        job.progress({"step": step + 1, "steps": pipe.num_timesteps})
        pipe._interrupt = job.cancelled
        return tensors

    images = private_copy(pipe)(
        request.prompt,
        negative_prompt=request.negative_prompt,
        num_inference_steps=request.steps,
        guidance_scale=request.guidance,
        width=request.width,
        height=request.height,
        num_images_per_prompt=request.num_images,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],  # on the CPU: equal on every device
        callback_on_step_end=after_step,
    ).images
    if job.cancelled:
        return []
    return [{"image": job.save(image, f"{seed}.png"), "seed": seed} for image, seed in zip(images, seeds, strict=True)]


def private_copy(pipe: StableDiffusionPipeline) -> StableDiffusionPipeline:
    """A pipeline for one job, with the same weights but its own scheduler, which counts the steps."""
    pipe = copy.copy(pipe)
    pipe.scheduler = copy.deepcopy(pipe.scheduler)
    return pipe


if __name__ == "__main__":
    worker.start()
