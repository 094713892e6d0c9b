"""What may stand in worker.yaml. Every key is optional; the types below also make its schema and its docs."""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"
VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
PACKAGE = r"^[a-z0-9][a-z0-9+.:=~-]*$"
SECRET = re.compile(r"(^|_)(KEY|TOKEN|SECRET|PASSWORD)$", re.IGNORECASE)

Name = Annotated[str, Meta(pattern=NAME)]
Seconds = Annotated[float, Meta(ge=0)]
Text = Annotated[str, Meta(min_length=1)]
Python = Annotated[str, Meta(pattern=r"^3\.[0-9]+$")]
Count = Annotated[int, Meta(ge=0)]
Slots = Annotated[int, Meta(ge=1)]


class Model(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Weights the handler loads."""

    id: Annotated[Text, Meta(description="Hub id (`org/name`), or a folder beside worker.yaml that begins with `./`")]
    revision: Annotated[Text | None, Meta(description="Branch, tag or commit; the hub's main branch by default")] = None
    files: Annotated[
        tuple[Text, ...], Meta(description="Only files that match one of these patterns, such as `*.safetensors`")
    ] = ()
    bake: Annotated[
        bool,
        Meta(
            description="Put it into the image; else it is fetched at first use and kept on the volume, if there is one"
        ),
    ] = False

    @property
    def is_folder(self) -> bool:
        """Whether it lies beside worker.yaml and does not come from the hub."""
        return self.id.startswith("./")


class Timeouts(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How long things may take, in seconds."""

    load: Annotated[Seconds | None, Meta(description="Loading the model")] = None
    grace: Annotated[Seconds | None, Meta(description="Running jobs after SIGTERM")] = None
    stop: Annotated[Seconds | None, Meta(description="A stopped handler, before its process is killed")] = None


class Spool(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Where results wait that could not be delivered."""

    dir: Annotated[Text | None, Meta(description="Folder")] = None
    bytes: Annotated[Count | None, Meta(description="Most bytes kept there")] = None


class Case(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One test of the handler: an input, and what must come of it."""

    input: Annotated[Any, Meta(description="The job's input")]
    name: Annotated[Text | None, Meta(description="What it is called in the report")] = None
    output: Annotated[Any | UnsetType, Meta(description="The expected output; left out: any will do")] = UNSET
    timeout: Annotated[float, Meta(gt=0, description="Seconds until it has failed")] = 30.0


class WorkerFile(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How one handler is built, configured and tested. It lies beside the handler; every key is optional."""

    endpoint: Annotated[Name | None, Meta(description="The endpoint's name; also names the image")] = None
    handler: Annotated[Text, Meta(description="The Python file that declares the handler")] = "handler.py"
    python: Annotated[Python | None, Meta(description="Python of the image, such as 3.12")] = None
    requirements: Annotated[
        Text | tuple[Text, ...] | None,
        Meta(description="A requirements file, or a list of packages; requirements.txt when there is one"),
    ] = None
    system: Annotated[
        tuple[Annotated[str, Meta(pattern=PACKAGE)], ...], Meta(description="Debian packages the image needs")
    ] = ()
    base: Annotated[Text | None, Meta(description="The image to build on")] = None
    models: Annotated[tuple[Model, ...], Meta(description="Weights, baked into the image or kept on the volume")] = ()
    device: Annotated[Text | None, Meta(description="auto, cuda, cuda:1, cpu or mps")] = None
    concurrency: Annotated[Slots | None, Meta(description="Jobs at once, instead of the handler's own number")] = None
    prefetch: Annotated[
        Seconds | None, Meta(description="Longest time a job may be held before a slot is free, in seconds")
    ] = None
    ahead: Annotated[
        Seconds | None,
        Meta(description="The name of `prefetch` before 0.2; works until 0.3", extra_json_schema={"deprecated": True}),
    ] = None
    timeouts: Annotated[Timeouts, Meta(description="How long things may take, in seconds")] = Timeouts()
    spool: Annotated[Spool, Meta(description="Where results wait that could not be delivered")] = Spool()
    env: Annotated[
        dict[Annotated[str, Meta(pattern=VARIABLE)], str],
        Meta(description="Environment variables that are set unless the environment sets them; never a secret"),
    ] = {}
    tests: Annotated[tuple[Case, ...], Meta(description="What `runpod-worker test` runs")] = ()


def is_secret(variable: str) -> bool:
    """Whether an environment variable of this name looks like a secret."""
    return SECRET.search(variable) is not None
