"""From a handler's folder to an image.

plan        what goes into the image, from worker.yaml and the folder
dockerfile  the Dockerfile of a plan
image       the files that a build reads, and the base image it needs
builders    the programs that build: docker, podman, buildah
layers      the size of each layer
"""

from runpod_worker.build import image
from runpod_worker.build.builders import Builder, find_builder
from runpod_worker.build.dockerfile import MADE, render_dockerfile
from runpod_worker.build.layers import Layer, layer_table
from runpod_worker.build.plan import Plan, default_image_name, make_plan, refuse_secrets

__all__ = [
    "MADE",
    "Builder",
    "Layer",
    "Plan",
    "default_image_name",
    "find_builder",
    "image",
    "layer_table",
    "make_plan",
    "refuse_secrets",
    "render_dockerfile",
]
