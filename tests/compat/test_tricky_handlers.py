"""Tricky handlers: each ends its job with the right status, and the next job of the process works."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from runpod_worker.testing import OnceResult, run_once
from tests.compat.tricky_handlers import CHUNKS, FAILS, OUTPUTS


def run(code: str) -> OnceResult:
    names: dict[str, Any] = {"__name__": __name__}
    exec(code, names)
    result = run_once(names["handler"], 1, timeout_s=20)
    assert run_once(lambda job: job["input"], 7).output == 7, "the next job works"
    return result


def test_the_table_has_at_least_110_handlers() -> None:
    assert len(OUTPUTS) + len(CHUNKS) + len(FAILS) >= 110


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_tricky_handler_completes_with_its_output(name: str) -> None:
    code, output = OUTPUTS[name]
    if "subprocess" in code:
        subprocess.run(["true"], check=True)  # skips the test here where none may start a process
    result = run(code)

    assert (result.status, result.output, result.error) == ("COMPLETED", output, None)


@pytest.mark.parametrize("name", CHUNKS)
def test_a_tricky_generator_completes_with_its_chunks(name: str) -> None:
    code, chunks = CHUNKS[name]
    result = run(code)

    assert (result.status, result.chunks, result.error) == ("COMPLETED", chunks, None)


@pytest.mark.parametrize("name", FAILS)
def test_a_tricky_handler_fails_its_own_job_alone(name: str) -> None:
    code, reason = FAILS[name]
    result = run(code)

    assert result.status == "FAILED"
    assert result.error
    assert reason in result.error
