"""The keys of worker.yaml. Every key is optional; the schema and the docs come from these types."""

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
            description="Put it into the image; by default the first use downloads it, to the volume if one is mounted"
        ),
    ] = False

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder beside worker.yaml, not a model from the hub."""
        return self.id.startswith("./")


class Timeouts(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Time limits, in seconds."""

    load: Annotated[Seconds | None, Meta(description="Loading the model")] = None
    grace: Annotated[Seconds | None, Meta(description="Running jobs after SIGTERM")] = None
    stop: Annotated[Seconds | None, Meta(description="A stopped handler, before its process is killed")] = None


class Spool(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Storage for results that could not be delivered."""

    dir: Annotated[Text | None, Meta(description="Folder")] = None
    bytes: Annotated[Count | None, Meta(description="Maximum bytes to keep")] = None


class Case(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One test of the handler: an input and the expected output."""

    input: Annotated[Any, Meta(description="The job's input")]
    name: Annotated[Text | None, Meta(description="Name in the report")] = None
    output: Annotated[Any | UnsetType, Meta(description="The expected output; without it, any output passes")] = UNSET
    timeout: Annotated[float, Meta(gt=0, description="Seconds after which the test fails")] = 30.0


class WorkerFile(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How one handler is built, configured and tested. The file is beside the handler; every key is optional."""

    endpoint: Annotated[Name | None, Meta(description="The endpoint's name; also the image's")] = None
    handler: Annotated[Text, Meta(description="The Python file that declares the handler")] = "handler.py"
    python: Annotated[Python | None, Meta(description="Python of the image, such as 3.12")] = None
    requirements: Annotated[
        Text | tuple[Text, ...] | None,
        Meta(description="A requirements file, or a list of packages; by default requirements.txt, if it exists"),
    ] = None
    system: Annotated[
        tuple[Annotated[str, Meta(pattern=PACKAGE)], ...], Meta(description="Debian packages that the image needs")
    ] = ()
    base: Annotated[Text | None, Meta(description="The image to build on")] = None
    models: Annotated[tuple[Model, ...], Meta(description="Weights, baked into the image or kept on the volume")] = ()
    device: Annotated[Text | None, Meta(description="auto, cuda, cuda:1, cpu or mps")] = None
    concurrency: Annotated[
        Slots | None, Meta(description="Maximum jobs that run at the same time, instead of the handler's own number")
    ] = None
    prefetch: Annotated[
        Seconds | None, Meta(description="Longest time a job may be held before a slot is free, in seconds")
    ] = None
    ahead: Annotated[
        Seconds | None,
        Meta(description="The name of `prefetch` before 0.2; works until 0.3", extra_json_schema={"deprecated": True}),
    ] = None
    timeouts: Annotated[Timeouts, Meta(description="Time limits, in seconds")] = Timeouts()
    spool: Annotated[Spool, Meta(description="Storage for results that could not be delivered")] = Spool()
    env: Annotated[
        dict[Annotated[str, Meta(pattern=VARIABLE)], str],
        Meta(description="Environment variables, unless the environment sets them already; never a secret"),
    ] = {}
    tests: Annotated[tuple[Case, ...], Meta(description="The tests that `runpod-worker test` runs")] = ()


def is_secret(variable: str) -> bool:
    """Whether an environment variable of this name looks like a secret."""
    return SECRET.search(variable) is not None
