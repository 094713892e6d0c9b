"""The handler once, in this process, on a job from the command line or test_input.json (protocol C.4).

Exit code 0: it worked, and the output is the expected one where one was given. 1: it did not.
"""

from __future__ import annotations

import asyncio
import difflib
import sys
from pathlib import Path
from typing import Any, TextIO

import msgspec

from runpod_worker.config import WorkerSettings
from runpod_worker.core.errors import InputError
from runpod_worker.net.loop import new_event_loop
from runpod_worker.worker.handler.declaration import Declaration
from runpod_worker.worker.ipc.messages import Chunks, Done, Progress, Ready, ToAgent
from runpod_worker.worker.launch.once import JOB_ID, run_job
from runpod_worker.worker.launch.shortened import shortened

TEST_INPUT = Path("test_input.json")
OUTPUT_FOLDER = Path("output")


def run(
    declaration: Declaration,
    settings: WorkerSettings,
    test_input: str | None = None,
    test_output: str | None = None,
    out: TextIO | None = None,
    *,
    full: bool = False,
) -> int:
    """Run the handler on one job, print what comes of it, return the exit code.

    Args:
        declaration: what the user declared.
        settings: the device, and what errors name.
        test_input: the job as JSON or `@FILE`; test_input.json in the current folder by default.
        test_output: the expected output as JSON or `@FILE`; not compared by default.
        out: standard output by default.
        full: print long values in full; what is compared is never shortened.
    """
    show = _Show(out or sys.stdout, full=full)
    try:
        job = _job(test_input)
        expected = None if test_output is None else [_json(test_output, "--test_output")]
    except InputError as error:
        show.error(str(error))
        return 1
    with asyncio.Runner(loop_factory=new_event_loop) as aio:
        run_job(declaration, settings, job, aio=aio, on_message=show.messages, save=_save)
    return show.verdict(expected)


def _save(name: str, content: bytes) -> str:
    OUTPUT_FOLDER.mkdir(parents=True, exist_ok=True)
    path = OUTPUT_FOLDER / name
    path.write_bytes(content)
    return str(path)


def _job(test_input: str | None) -> dict[str, Any]:
    if test_input is None and not TEST_INPUT.is_file():
        raise InputError("test_input.json not found, exiting. (Give the job with --test_input, or make that file.)")
    name = "--test_input" if test_input is not None else str(TEST_INPUT)
    job = _json(f"@{TEST_INPUT}" if test_input is None else test_input, name)
    if not isinstance(job, dict):
        raise InputError(f"{name}: expected a JSON object, got {type(job).__name__}")
    if job.get("input") is None:
        raise InputError(f"{name}: Job has no input parameter.")
    return {"id": JOB_ID, **job}


def _json(text: str, name: str) -> Any:
    try:
        data = Path(text[1:]).read_text(encoding="utf-8") if text.startswith("@") else text
        return msgspec.json.decode(data)
    except OSError as error:
        raise InputError(f"{name}: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{name}: not JSON: {error}") from error


class _Show:
    """Prints the run as it goes."""

    def __init__(self, out: TextIO, *, full: bool) -> None:
        self._out = out
        self._full = full
        self._was_shortened = False
        self._done: Done | None = None
        self._chunks: list[Any] = []

    def _ready(self, ready: Ready) -> None:
        where = f"{ready.device} ({ready.gpu})" if ready.gpu else ready.device
        self._line(f"model      loaded in {ready.load_s:.2f} s on {where}")

    def messages(self, *messages: ToAgent) -> None:
        for message in messages:
            match message:
                case Ready():
                    self._ready(message)
                case Progress():
                    self._line(f"progress   {self._shown(msgspec.json.decode(message.value)).decode()}")
                case Chunks():
                    for index, chunk in enumerate(message.outputs, message.index):
                        self._chunks.append(msgspec.json.decode(chunk))
                        self._line(f"chunk {index:<4} {self._shown(self._chunks[-1]).decode()}")
                case Done():
                    self._done = message

    def error(self, text: str) -> None:
        self._line(f"error      {text}")

    def verdict(self, expected: list[Any] | None) -> int:
        """Print the result and whether it is the expected one."""
        done = self._done
        assert done is not None  # noqa: S101 - there is exactly one for each Run
        self._line(f"output     {self._pretty(done.output)}")
        if self._was_shortened:
            self._line("           (long values are shortened here; --test_full prints all of them)")
        if done.timings is not None:
            self._line(f"time       {(done.timings.finished - done.timings.started) * 1000:.1f} ms in the handler")
        if done.error is not None:
            self._failed(done.error)
            return 1
        if expected is None:
            self._line("result     ok")
            return 0
        return self._compare(expected[0], done)

    def _compare(self, expected: Any, done: Done) -> int:
        output = self._chunks if done.is_stream else None if done.output is None else msgspec.json.decode(done.output)
        if done.output is None and not done.is_stream:
            output = {}
        if output == expected:
            self._line("result     ok, the output is the expected one")
            return 0
        self._line("result     the output differs from the expected one:")
        lines = difflib.unified_diff(_lines(expected), _lines(output), "expected", "output", lineterm="")
        for line in lines:
            self._line(f"  {line}")
        return 1

    def _failed(self, error: str) -> None:
        """Print an error; one of an exception by its traceback."""
        try:
            told = msgspec.json.decode(error)
            self.error(told["error_traceback"].rstrip())
        except (msgspec.DecodeError, KeyError, TypeError):
            self.error(error)

    def _pretty(self, output: bytes | None) -> str:
        if output is None:
            return "(none)"
        return msgspec.json.format(self._shown(msgspec.json.decode(output)), indent=2).decode()

    def _shown(self, value: Any) -> bytes:
        """The value as JSON, shortened unless everything was asked for."""
        short = value if self._full else shortened(value)
        self._was_shortened = self._was_shortened or short != value
        return msgspec.json.encode(short)

    def _line(self, text: str) -> None:
        self._out.write(text + "\n")
        self._out.flush()


def _lines(value: Any) -> list[str]:
    return msgspec.json.format(msgspec.json.encode(value, order="sorted"), indent=2).decode().splitlines()
