"""From a handler's folder to an image: a readable Dockerfile, whichever engine is there, and what each layer weighs."""

from runpod_worker.build import image
from runpod_worker.build.builders import Engine, find
from runpod_worker.build.dockerfile import MADE, dockerfile
from runpod_worker.build.layers import Layer, table
from runpod_worker.build.plan import Plan, image_name, plan, refuse_secrets

__all__ = [
    "MADE",
    "Engine",
    "Layer",
    "Plan",
    "dockerfile",
    "find",
    "image",
    "image_name",
    "plan",
    "refuse_secrets",
    "table",
]
