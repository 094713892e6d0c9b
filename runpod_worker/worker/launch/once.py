"""Runs one job in this process: `run_once` for users' own tests, `run_job` beneath it and beneath local.

A call leaves no thread, folder or signal handler behind. A worker keeps its model, and the event
loop that the model may belong to, for the next call.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import msgspec

from runpod_worker.config import WorkerSettings, worker_settings
from runpod_worker.core.dispatch.messages import Chunks, Done, Progress, Run, Stop, ToAgent
from runpod_worker.core.errors import DeclarationError
from runpod_worker.log import fields, log
from runpod_worker.net.loop import loop_factory
from runpod_worker.worker.executor.attempt import now
from runpod_worker.worker.executor.job_loop import JobLoop
from runpod_worker.worker.handler.declaration import Declaration, Hook, make_handler

JOB_ID = "local_test"


@dataclass(slots=True, kw_only=True)
class OnceResult:
    """Everything a caller would see of one job, and its log lines."""

    status: str = "FAILED"
    """COMPLETED, FAILED or CANCELLED."""
    output: Any = None
    """The output as JSON values, or None."""
    error: str | None = None
    """The error as callers read it: plain text, or JSON with `error_type` and `error_traceback` for an exception."""
    chunks: list[Any] = field(default_factory=list)
    """The values that a generator yielded, in order."""
    progress: list[Any] = field(default_factory=list)
    """Every value given to `job.progress`, in order. A job service keeps only the latest."""
    files: dict[str, bytes] = field(default_factory=dict)
    """The files that `job.save` stored, by name. It returned `files/NAME` as their URL."""
    logs: list[str] = field(default_factory=list)
    """The lines of `job.log` and of the worker, from level INFO: `INFO message key=value`."""

    def _save(self, name: str, content: bytes) -> str:
        """Keep a file; return its URL."""
        self.files[name] = content
        return f"files/{name}"

    def _on_message(self, *messages: ToAgent) -> None:
        """Add everything that the attempt sends."""
        for message in messages:
            match message:
                case Progress():
                    self.progress.append(msgspec.json.decode(message.value))
                case Chunks():
                    self.chunks += [msgspec.json.decode(chunk) for chunk in message.outputs]
                case Done():
                    self.output = None if message.output is None else msgspec.json.decode(message.output)
                    self.error = message.error
                    self.status = "CANCELLED" if message.stopped else "COMPLETED" if message.error is None else "FAILED"


def run_once(
    worker_or_handler: Any,
    input: Any,  # noqa: A002 - the word users know
    *,
    timeout_s: float | None = None,
    cancel_after_s: float | None = None,
) -> OnceResult:
    """Run one job in this process and return its result. Takes milliseconds, and needs no service or other process.

    The first call loads a worker's model and runs its checks and warm-ups; the next calls use the same model. Shutdown
    hooks do not run. `File` inputs may be local paths. If an event loop is running, the job runs in another
    thread, where a stop cannot interrupt a function: the function must check `job.cancelled`.

    Args:
        worker_or_handler: a `Worker`, or a bare handler that takes no model.
        input: the input. The handler gets it as if it had been JSON.
        timeout_s: the executionTimeout of the job; the handler's own `timeout` applies too.
        cancel_after_s: cancel the job after this time.

    Raises:
        DeclarationError: there is no handler, or it takes a model that nothing loads.
        Exception: the error of loading the model, a check or a warm-up. The handler's error is in the result.
    """
    if hasattr(worker_or_handler, "run_once"):  # a Worker, a class that this module must not import
        result: OnceResult = worker_or_handler.run_once(input, timeout_s=timeout_s, cancel_after_s=cancel_after_s)
        return result
    handler = make_handler(worker_or_handler)
    if handler.takes_model:
        raise DeclarationError("this handler takes a model: pass run_once the worker, which loads the model")
    return Session(Declaration(handler=handler)).run(input, timeout_s=timeout_s, cancel_after_s=cancel_after_s)


class Session:
    """The calls of `run_once` for one worker, which share an event loop and a model."""

    def __init__(self, declaration: Declaration) -> None:
        self._declaration = replace(declaration, shutdowns=[])
        self._lock = threading.RLock()
        self._aio = asyncio.Runner(loop_factory=loop_factory(worker_settings().uvloop))
        weakref.finalize(self, self._aio.get_loop().close)

    def run(self, input: Any, *, timeout_s: float | None, cancel_after_s: float | None) -> OnceResult:  # noqa: A002
        """Run one job, in another thread if this one runs an event loop."""
        result = OnceResult()
        run = partial(
            run_job,
            self._declaration,
            worker_settings({"concurrency": 1}),
            {"id": JOB_ID, "input": input},
            aio=self._aio,
            on_message=result._on_message,
            save=result._save,
            timeout_s=timeout_s,
            cancel_after_s=cancel_after_s,
        )
        with self._lock, _capture_logs(result.logs), ThreadPoolExecutor() as pool:
            self._aio.get_loop().set_default_executor(pool)  # so the threads of `asyncio.to_thread` end with this call
            model = pool.submit(contextvars.copy_context().run, run).result() if _in_event_loop() else run()
        loaded = None if self._declaration.model is None else Hook(lambda: model, 0)
        self._declaration = replace(self._declaration, model=loaded, checks=[], warmups=[])
        return result


def run_job(
    declaration: Declaration,
    settings: WorkerSettings,
    job: Mapping[str, Any],
    *,
    aio: asyncio.Runner,
    on_message: Callable[..., None],
    save: Callable[[str, bytes], str],
    timeout_s: float | None = None,
    cancel_after_s: float | None = None,
) -> Any:
    """Load the model, run one job and the shutdown hooks in this thread; return the model.

    `on_message` gets Ready, then each message about the job, from any thread. `save` keeps a file (name and content)
    and returns its URL. `timeout_s` is the job's executionTimeout; `cancel_after_s` cancels the job after this time.
    """

    def deliver(*messages: ToAgent) -> None:
        try:
            on_message(*messages)
        finally:
            if isinstance(messages[-1], Done):  # the only job's last message
                loop.close()

    body = msgspec.json.encode(job)
    loop = JobLoop(declaration, settings, deliver, keep=save, aio=aio)
    cancel = threading.Timer(cancel_after_s or 0.0, loop.handle, (Stop(JOB_ID, "the job was cancelled"),))
    try:
        on_message(loop.load())
        loop.handle(Run(JOB_ID, body, now(), timeout_s))
        if cancel_after_s is not None:
            cancel.start()
        loop.serve()
    finally:
        cancel.cancel()
        if cancel.ident is not None:
            cancel.join()
        loop.shutdown()
    return loop.model


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


@contextmanager
def _capture_logs(lines: list[str]) -> Iterator[None]:
    handler, level = _LineHandler(lines), log.level
    log.addHandler(handler)
    if not log.isEnabledFor(logging.INFO):
        log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(level)
        log.removeHandler(handler)


class _LineHandler(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        pairs = "".join(f" {key}={value}" for key, value in fields(record).items() if key != "job")
        self._lines.append(f"{record.levelname} {record.getMessage()}{pairs}")
