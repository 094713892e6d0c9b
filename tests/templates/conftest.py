"""A job service, and templates served by real workers: each a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runpod_worker import Endpoint
from runpod_worker.cli.init import copy_template

ANSWER_S = 240.0
"""The first answer waits for the model to be loaded, and once for one to be unpacked, on a machine that is busy."""

SERVE = """
import sys
from pathlib import Path
from runpod_worker.service.server import serve
from runpod_worker.service.settings import ServiceSettings
serve(ServiceSettings(port=0, data=Path(sys.argv[1])), ready=lambda url: print(url, flush=True))
"""


@dataclass(frozen=True)
class Served:
    """A template at work."""

    endpoint: Endpoint
    log: Path
    test_input: dict[str, Any]
    """The input of its own test_input.json."""

    def answer(self, **changed: Any) -> Any:
        """The output for the template's test input, changed in these fields."""
        return self._noted(lambda: self.endpoint.run_sync({"input": self.test_input | changed}, timeout=ANSWER_S))

    def stream(self, **changed: Any) -> list[Any]:
        """The chunks, as they came over /stream."""
        return self._noted(lambda: list(self.endpoint.run({"input": self.test_input | changed}).stream()))

    def _noted(self, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except Exception as error:
            error.add_note(f"the end of the worker's log:\n{self.log.read_text()[-4000:]}")
            raise


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """An environment without the settings of this machine, with models from disk and one thread per process."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RUNPOD_", "BUCKET_", "MODEL"))}
    return kept | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Iterator[str]:
    """The URL of a job service."""
    command = [sys.executable, "-c", SERVE, str(tmp_path_factory.mktemp("service"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url, "the service did not start"
        yield url
        process.send_signal(signal.SIGTERM)


@pytest.fixture(scope="session")
def served(
    service: str, tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]
) -> Iterator[Callable[[str], Served]]:
    """Copy each template as `init` does and start a worker in it, once. At the end each worker must drain."""
    known: dict[str, Served] = {}
    with ExitStack() as workers:

        def served(template: str) -> Served:
            if template not in known:
                folder = tmp_path_factory.mktemp("templates") / template
                log = folder.with_suffix(".log")
                copy_template(template, folder)
                workers.enter_context(worker(folder, f"{service}/v2/{template}", log, environment))
                test_input = json.loads((folder / "test_input.json").read_text())["input"]
                with pytest.MonkeyPatch.context() as patch:
                    patch.setenv("RUNPOD_ENDPOINT_BASE_URL", f"{service}/v2")
                    known[template] = Served(Endpoint(template), log, test_input)
            return known[template]

        yield served


@contextmanager
def worker(folder: Path, url: str, log: Path, environment: dict[str, str]) -> Iterator[None]:
    """A worker of the handler in `folder`; leaving drains it."""
    command = [sys.executable, "-m", "runpod_worker", "run", "handler.py", "--url", url]
    spool = {"RUNPOD_WORKER_SPOOL": str(folder / "spool")}
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=folder, stdout=output, stderr=subprocess.STDOUT, env=environment | spool
        )
    try:
        yield
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0, log.read_text()[-4000:]
    finally:
        process.kill()
        process.wait()
