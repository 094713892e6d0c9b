"""`python handler.py` without a job service: runs one job in this process and prints it (protocol C.4).

The job comes from the command line or from test_input.json. Exit code 0: the job completed, with the expected output
where one is given. Exit code 1: it did not.
"""

from __future__ import annotations

import asyncio
import difflib
import sys
from pathlib import Path
from typing import Any, TextIO

import msgspec

from runpod_worker.config import WorkerSettings
from runpod_worker.core.dispatch.messages import Chunks, Done, Progress, Ready, ToAgent
from runpod_worker.core.errors import InputError
from runpod_worker.net.loop import loop_factory
from runpod_worker.worker.handler.declaration import Declaration
from runpod_worker.worker.launch.once import JOB_ID, run_job

TEST_INPUT = Path("test_input.json")
OUTPUT_FOLDER = Path("output")

MAX_TEXT, SHOWN_CHARS = 400, 100
"""Characters. A longer string shows its first ones."""

MAX_ITEMS, SHOWN_ITEMS = 16, 4
"""A longer list shows its first items."""

MAX_KEYS = 50
"""A larger object shows its first keys."""


def run(
    declaration: Declaration,
    settings: WorkerSettings,
    test_input: str | None = None,
    test_output: str | None = None,
    *,
    full: bool = False,
) -> int:
    """Run one job, print its progress and its result, return the exit code.

    `test_input` is the job as JSON or `@FILE`, by default test_input.json in the current folder. `test_output` is the
    expected output, or None: the output is not compared. `full`: print long values in full. The comparison always uses
    full values.
    """
    printer = _Printer(sys.stdout, full=full)
    try:
        job = _job(test_input)
        expected = None if test_output is None else [_json(test_output, "the expected output")]
    except InputError as error:
        printer.error(str(error))
        return 1
    with asyncio.Runner(loop_factory=loop_factory(settings.uvloop)) as aio:
        run_job(declaration, settings, job, aio=aio, on_message=printer.on_message, save=_save)
    return printer.exit_code(expected)


def _save(name: str, content: bytes) -> str:
    OUTPUT_FOLDER.mkdir(parents=True, exist_ok=True)
    (OUTPUT_FOLDER / name).write_bytes(content)
    return str(OUTPUT_FOLDER / name)


def _job(test_input: str | None) -> dict[str, Any]:
    if test_input is None and not TEST_INPUT.is_file():
        raise InputError(
            "test_input.json not found, exiting. (Create that file, or pass the job: "
            "`runpod-worker test --input JSON`, or --test_input.)"
        )
    name = "the test input" if test_input is not None else str(TEST_INPUT)
    job = _json(f"@{TEST_INPUT}" if test_input is None else test_input, name)
    if not isinstance(job, dict):
        raise InputError(f'{name}: expected a JSON object like {{"input": ...}}, got {type(job).__name__}')
    if job.get("input") is None:
        raise InputError(f'{name}: Job has no input parameter. Expected {{"input": ...}}')
    return {"id": JOB_ID, **job}


def _json(text: str, name: str) -> Any:
    try:
        data = Path(text[1:]).read_text(encoding="utf-8") if text.startswith("@") else text
        return msgspec.json.decode(data)
    except OSError as error:
        raise InputError(f"{name}: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{name}: not JSON: {error}") from error


class _Printer:
    """Prints a job while it runs, then its result."""

    def __init__(self, out: TextIO, *, full: bool) -> None:
        self._out = out
        self._full = full
        self._truncated = False
        self._done = Done(key=JOB_ID, error="the job has not run")
        self._chunks: list[Any] = []

    def on_message(self, *messages: ToAgent) -> None:
        for message in messages:
            match message:
                case Ready():
                    device = f"{message.device} ({message.gpu})" if message.gpu else message.device
                    self._line(f"model      loaded in {message.load_s:.2f} s on {device}")
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

    def exit_code(self, expected: list[Any] | None) -> int:
        """Print the result, and compare it with the one value in `expected` unless that is None."""
        done = self._done
        self._line(f"output     {self._pretty(done.output)}")
        if self._truncated:
            self._line("           (long values are shortened here; --test_full prints them in full)")
        if done.timings is not None:
            self._line(f"time       {(done.timings.finished - done.timings.started) * 1000:.1f} ms in the handler")
        if done.error is not None:
            self.error(_readable(done.error))
            return 1
        if expected is None:
            self._line("result     ok")
            return 0
        return self._compare(expected[0], done)

    def _compare(self, expected: Any, done: Done) -> int:
        no_stream = {} if done.output is None else msgspec.json.decode(done.output)
        output = self._chunks if done.is_stream else no_stream
        if output == expected:
            self._line("result     ok, the output is the expected one")
            return 0
        self._line("result     the output differs from the expected one:")
        for line in difflib.unified_diff(_lines(expected), _lines(output), "expected", "output", lineterm=""):
            self._line(f"  {line}")
        return 1

    def _pretty(self, output: bytes | None) -> str:
        if output is None:
            return "(none)"
        return msgspec.json.format(self._shown(msgspec.json.decode(output)), indent=2).decode()

    def _shown(self, value: Any) -> bytes:
        """Return the value as JSON, truncated unless everything is wanted."""
        shown = value if self._full else truncate(value)
        self._truncated = self._truncated or shown != value
        return msgspec.json.encode(shown)

    def _line(self, text: str) -> None:
        self._out.write(text + "\n")
        self._out.flush()


def _readable(error: str) -> str:
    """Return the traceback if the error is an exception, else its text."""
    try:
        traceback: str = msgspec.json.decode(error)["error_traceback"]
    except (msgspec.DecodeError, KeyError, TypeError):
        return error
    return traceback.rstrip()


def _lines(value: Any) -> list[str]:
    return msgspec.json.format(msgspec.json.encode(value, order="sorted"), indent=2).decode().splitlines()


def truncate(value: Any) -> Any:
    """Return the part of a JSON value that fits on a screen."""
    match value:
        case str() if len(value) > MAX_TEXT:
            return f"{value[:SHOWN_CHARS]}{_count(len(value) - SHOWN_CHARS)} characters"
        case list() if len(value) > MAX_ITEMS:
            return [*map(truncate, value[:SHOWN_ITEMS]), _count(len(value) - SHOWN_ITEMS)]
        case list():
            return [truncate(item) for item in value]
        case dict():
            shown = {key: truncate(item) for key, item in list(value.items())[:MAX_KEYS]}
            return shown | ({"…": _count(len(value) - MAX_KEYS)} if len(value) > MAX_KEYS else {})
        case _:
            return value


def _count(count: int) -> str:
    return f"… {count:,} more"
