"""The Stable Diffusion example, loaded once, and a stand-in for the job the framework hands to it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from PIL import Image

from runpod_worker import Job
from runpod_worker.core.schema import validate

EXAMPLE = Path(__file__).parents[2] / "examples/stable_diffusion"
sys.path.append(str(EXAMPLE))  # for `judge` and `shapes`, which import each other


class Attempt:
    """The backend of a job: it records the reports and files of the handler."""

    deadline = None

    def __init__(self, request: Any, cancel_after: float) -> None:
        self.input = request
        self.cancel_after = cancel_after
        self.reported: list[Any] = []
        self.saved: dict[str, Image.Image] = {}

    @property
    def cancelled(self) -> bool:
        return len(self.reported) >= self.cancel_after

    def progress(self, value: Any) -> None:
        self.reported.append(value)

    def save(self, content: Any, name: str) -> str:
        url = f"http://files/{name}"
        self.saved[url] = content
        return url

    def metric(self, name: str, value: float) -> None:
        pass

    def fetch(self, source: str, limit: int | None) -> Path:
        raise NotImplementedError


class Studio:
    """Takes orders for pictures, by the handler's own function."""

    def __init__(self, module: ModuleType, pipe: Any) -> None:
        self.module, self.pipe = module, pipe

    def run(self, cancel_after: float = float("inf"), **fields: Any) -> tuple[list[dict[str, Any]], Attempt]:
        """The handler's output for this input, with its progress and its files."""
        attempt = Attempt(validate(fields, self.module.Request), cancel_after)
        return self.module.handler(Job({"id": "test", "input": fields}, attempt), self.pipe), attempt

    def draw(self, prompt: str, **fields: Any) -> list[Image.Image]:
        output, attempt = self.run(prompt=prompt, **fields)
        return [attempt.saved[picture["image"]] for picture in output]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """With two, some pictures differ by a shade; and tests that run side by side wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def handler_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("stable_diffusion_handler", EXAMPLE / "handler.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # msgspec looks the annotations up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def studio(handler_module: ModuleType) -> Studio:
    return Studio(handler_module, handler_module.load(torch.device("cpu")))
