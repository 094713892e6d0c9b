"""The executor's inside, without the channel: loads the model and runs jobs that arrive as frames.

The same engine serves an agent (executor.py) and a local run in the user's own process (local.py).
"""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from runpod_worker.config import WorkerSettings, download_settings
from runpod_worker.core.errors import ChannelClosed, CheckFailed, HandlerError, InputError
from runpod_worker.core.schema import path_to, validate
from runpod_worker.log import log
from runpod_worker.net.loop import new_event_loop
from runpod_worker.worker.executor import device, results
from runpod_worker.worker.executor.attempt import Files, Running, alive, now
from runpod_worker.worker.executor.concurrency import concurrency_of
from runpod_worker.worker.executor.deadlines import Deadlines
from runpod_worker.worker.executor.files.inputs import Fetches
from runpod_worker.worker.executor.files.outputs import SavedFiles
from runpod_worker.worker.executor.interrupt import MainThread
from runpod_worker.worker.executor.invoke import Calling
from runpod_worker.worker.executor.results import Place
from runpod_worker.worker.executor.runners import Runner, runner_for
from runpod_worker.worker.executor.sender import Outflow
from runpod_worker.worker.executor.window import Account, Bank
from runpod_worker.worker.handler.declaration import Declaration, Hook
from runpod_worker.worker.ipc.messages import Done, Ready, Revoke, Run, Stop, ToExecutor, WindowUpdate

Send = Callable[..., None]


class Engine:
    """Runs the jobs of one declared worker on one device; frames go out by `send`, which may wait."""

    def __init__(
        self,
        declaration: Declaration,
        settings: WorkerSettings,
        send: Send,
        *,
        files: Files | None = None,
        fetches: Fetches | None = None,
        bank: Bank | None = None,
    ) -> None:
        """`bank`: where each job's credit is kept; by default nobody gives credit, and nothing waits for it."""
        self._declared = declaration
        self._settings = settings
        self._outflow = Outflow(send)
        self._files: Files = files or SavedFiles(self._outflow.send)
        self._bank = bank
        self._fetches = fetches or Fetches(download_settings())
        self._arriving = _Arriving()
        self._deadlines = Deadlines()
        self._aio = asyncio.Runner(loop_factory=new_event_loop)
        self._held: dict[str, Running] = {}
        self._decode = msgspec.json.Decoder().decode
        self._model: Any = None
        self._runner: Runner | None = None

    def load(self) -> Ready:
        """Load the model, run checks and warm-ups. Raises what they raise."""
        handler, hook = self._declared.handler, self._declared.model
        self._fetches.sweep()
        found = device.resolve(self._settings.device, with_torch=hook is not None and hook.arguments > 0)
        began = now()
        if hook is not None:
            self._model = self._call(hook, found.value)
        load_s = now() - began
        for check in self._declared.checks:
            self._check(check)
        self._warm_up()
        slots = concurrency_of(handler, self._settings)
        self._runner = runner_for(self._calling(self._outflow), self._outflow, self._ended, slots, self._aio)
        gc.collect()
        gc.freeze()  # what was loaded stays: no collection need look at it again
        return Ready(
            kind=handler.kind,
            slots=slots.slots,
            load_s=load_s,
            device=found.name,
            gpu=found.gpu,
            timeout_s=handler.timeout_s,
            aggregate=handler.aggregate,
            refresh=handler.refresh,
        )

    def serve(self) -> None:
        """Run jobs until `close`. To be called in the main thread, after `load`."""
        assert self._runner is not None, "load() comes first"  # noqa: S101
        self._runner.serve()

    def received(self, frame: ToExecutor) -> None:
        """Do what the agent says. From one thread, which is not kept waiting by a running job."""
        match frame:
            case Run():
                self._run(frame)
            case Stop():
                self._stop(frame.key, frame.reason)
            case Revoke():
                held = self._held.get(frame.key)
                if held is not None and held.claim():
                    self._answer(Done(frame.key, revoked=True))
            case WindowUpdate():
                if self._bank is not None:
                    self._bank.pay(frame.key, frame.size)

    def close(self, reason: str | None = None) -> None:
        """Let `serve` end when what was received is done. With a reason: stop it, and answer for nothing any more."""
        if reason is not None:
            for running in list(self._held.values()):
                if not running.claim():
                    running.stop(reason)
        if self._runner is not None:
            self._arriving.close(self._runner.close, wait=reason is None)

    def shutdown(self) -> None:
        """Run the shutdown hooks, send what is still to be sent, end all threads."""
        for hook in self._declared.shutdowns:
            try:
                self._call(hook, self._model)
            except Exception:
                log.exception("shutdown.failed")
        self._deadlines.close()
        self._fetches.close()
        self._files.close()
        self._outflow.close()
        self._aio.close()

    # ---------------------------------------------------------------- one job

    def _run(self, frame: Run) -> None:
        try:
            account = None if self._bank is None else self._bank.open(frame.key)
            running = self._prepared(frame, self._outflow, self._files, account)
        except Exception as error:  # also what a __post_init__ of the user's input type raises
            self._outflow.send(Done(frame.key, error=results.raised(error, self._place()).error))
            return
        self._held[frame.key] = alive[running.id] = running
        if running.fetched is None:
            self._submit(running)
        else:
            self._arriving.begin()
            running.fetched.start(lambda: self._arrived(running))

    def _arrived(self, running: Running) -> None:
        """The files of the job's input are there, or one of them did not come, or the job was given up."""
        try:
            if (error := _not_come(running)) is None:
                running.input_ready_at = now()
                self._submit(running)
            elif running.claim():
                self._answer(Done(running.key, error=results.raised(error, self._place()).error))
        except ChannelClosed:  # whoever reads the channel deals with it
            log.debug("executor.agent_gone")
        finally:
            self._arriving.end()

    def _submit(self, running: Running) -> None:
        assert self._runner is not None  # noqa: S101 - no job comes before Ready
        self._runner.submit(running)

    def _prepared(self, frame: Run, outflow: Outflow, files: Files, account: Account | None = None) -> Running:
        try:
            received = self._decode(frame.body)
        except msgspec.DecodeError as error:
            raise InputError(f"the job is not JSON: {error}") from error
        if not isinstance(received, dict):
            raise InputError(f"job: expected object, got {type(received).__name__}")
        if "input" not in received:
            raise InputError("job.input is missing")
        running = Running(frame, received, outflow, files, account or Account())
        running.fetcher = self._fetches
        if self._declared.handler.input_type is not None:
            decoded = functools.partial(self._fetches.decoded, running)
            running.input = validate(received["input"], self._declared.handler.input_type, decode=decoded)
        running.input_ready_at = now()
        return running

    def _stop(self, key: str, reason: str) -> None:
        running = self._held.get(key)
        if running is None:
            return
        if running.claim():  # the handler was not entered, and will not be
            self._answer(Done(key, stopped=True))
        else:
            running.stop(reason)

    def _answer(self, done: Done) -> None:
        self._forget(self._held.pop(done.key))
        self._outflow.send(done)

    def _forget(self, running: Running) -> None:
        if alive.get(running.id) is running:
            del alive[running.id]
        running.let_go()
        if running.fetched is not None:
            running.fetched.close()

    def _ended(self, running: Running) -> None:
        del self._held[running.key]
        self._forget(running)
        if running.metrics:
            log.info("job.metrics", extra={"job": running.id, "metrics": running.metrics})

    # ---------------------------------------------------------------- hooks

    def _check(self, hook: Hook) -> None:
        try:
            self._call(hook, self._model)
        except Exception as error:
            name = getattr(hook.function, "__name__", type(hook.function).__name__)
            raise CheckFailed(name, f"{type(error).__name__}: {error}") from error

    def _call(self, hook: Hook, argument: Any) -> Any:
        value = hook.call(argument)
        return self._aio.run(_awaited(value)) if inspect.isawaitable(value) else value

    def _warm_up(self) -> None:
        if not self._declared.warmups:
            return
        outflow = Outflow(_drop)
        files = SavedFiles(_drop)
        calling = self._calling(outflow)
        for hook in self._declared.warmups:
            inputs = self._call(hook, self._model)
            for example in inputs if isinstance(inputs, list) else [] if inputs is None else [inputs]:
                self._warm_up_with(example, calling, outflow, files)
        files.close()
        outflow.close()

    def _warm_up_with(self, example: Any, calling: Calling, outflow: Outflow, files: SavedFiles) -> None:
        body = results.encoded({"id": "warmup", "input": example}, "warmup")
        running = self._prepared(Run("warmup", body, now()), outflow, files)
        if running.fetched is not None:
            arrived = threading.Event()
            running.fetched.start(arrived.set)
            arrived.wait()
            if error := _not_come(running):
                raise error
        calling.start(running)
        if calling.handler.kind.on_loop:
            done = self._aio.run(calling.run_on_loop(running))
        else:
            guard = MainThread()
            done = calling.run(running, guard)
            guard.close()
        self._forget(running)
        if done.error is not None:
            raise HandlerError(f"the warm-up failed: {done.error}")

    def _calling(self, outflow: Outflow) -> Calling:
        return Calling(self._declared.handler, self._model, outflow, self._deadlines, self._place(), self._aio)

    def _place(self) -> Place:
        return Place(self._settings.hostname, self._settings.worker_id)


class _Arriving:
    """How many jobs wait for their files; what has to wait for all of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._close: Callable[[], None] | None = None

    def begin(self) -> None:
        """One more job waits."""
        with self._lock:
            self._count += 1

    def end(self) -> None:
        """One waits no longer."""
        with self._lock:
            self._count -= 1
            close = None if self._count else self._close
        if close is not None:
            close()

    def close(self, call: Callable[[], None], *, wait: bool) -> None:
        """Call it, after the last job if `wait`."""
        with self._lock:
            if wait and self._count:
                self._close = call
                return
        call()


def _not_come(running: Running) -> Exception | None:
    """What to raise for a file of the job's input that did not come."""
    if running.fetched is None:
        return None
    return running.fetched.complaint(lambda source: path_to(source, running.job["input"]))


async def _awaited(value: Awaitable[Any]) -> Any:
    return await value


def _drop(*frames: object) -> None:
    """Warm-ups are nobody's jobs."""
