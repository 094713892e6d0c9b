"""The executor's inside, without the channel: loads the model and runs jobs that arrive as messages.

The same job_loop serves an agent (executor.py) and a local run in the user's own process (local.py).
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import Awaitable, Callable
from typing import Any
from weakref import WeakValueDictionary

import msgspec

from runpod_worker.config import WorkerSettings, download_settings
from runpod_worker.core.errors import ChannelClosed, CheckFailed, HandlerError, InputError
from runpod_worker.core.schema import path_to, validate
from runpod_worker.log import log
from runpod_worker.net.loop import new_event_loop
from runpod_worker.worker.executor import device, results
from runpod_worker.worker.executor.attempt import Attempt, Files, attempts_by_job_id, now
from runpod_worker.worker.executor.concurrency import Concurrency, concurrency_of
from runpod_worker.worker.executor.deadlines import Deadlines
from runpod_worker.worker.executor.files.inputs import Downloads
from runpod_worker.worker.executor.files.outputs import SavedFiles
from runpod_worker.worker.executor.interrupt import MainThread
from runpod_worker.worker.executor.invoke import Invoker
from runpod_worker.worker.executor.results import WorkerIdentity
from runpod_worker.worker.executor.runners import Runner, runner_for
from runpod_worker.worker.executor.sender import MessageSender
from runpod_worker.worker.executor.window import FlowWindow, window_size
from runpod_worker.worker.handler.declaration import Declaration, Hook
from runpod_worker.worker.ipc.messages import Done, Ready, Revoke, Run, Stop, ToExecutor, WindowUpdate


class JobLoop:
    """Runs the jobs of one declared worker on one device; messages go out by `send`, which may wait."""

    def __init__(
        self,
        declaration: Declaration,
        settings: WorkerSettings,
        sender: MessageSender,
        files: Files | None = None,
        downloads: Downloads | None = None,
        *,
        flow_control: bool = False,
        aio: asyncio.Runner | None = None,
    ) -> None:
        """Two of these are optional.

        flow_control: the other side acknowledges chunks and files with WindowUpdate; else no job waits.
        aio: runs everything that is awaited, and is not closed with this object; a new one by default.
        """
        self._declared = declaration
        self._settings = settings
        self._sender = sender
        self._files: Files = files or SavedFiles(self._sender.send)
        self._flow_control = flow_control
        self._windows: WeakValueDictionary[str, FlowWindow] = WeakValueDictionary()
        self._slots = Concurrency(1)
        self._downloads = downloads or Downloads(download_settings())
        self._pending_inputs = PendingInputs()
        self._deadlines = Deadlines()
        self._aio = aio or asyncio.Runner(loop_factory=new_event_loop)
        self._owns_aio = aio is None
        self._held: dict[str, Attempt] = {}
        self._decode = msgspec.json.Decoder().decode
        self.model: Any = None
        self._runner: Runner | None = None

    def load(self) -> Ready:
        """Load the model, run checks and warm-ups. Raises what they raise."""
        handler, hook = self._declared.handler, self._declared.model
        self._downloads.sweep()
        found = device.resolve(self._settings.device, with_torch=hook is not None and hook.arguments > 0)
        began = now()
        if hook is not None:
            self.model = self._call(hook, found.value)
        load_s = now() - began
        for check in self._declared.checks:
            self._check(check)
        self._warm_up()
        slots = self._slots = concurrency_of(handler, self._settings)
        self._runner = runner_for(self._invoker(self._sender), self._sender, self._on_ended, slots, self._aio)
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

    def handle(self, message: ToExecutor) -> None:
        """Do what the agent says. From one thread, which is not kept waiting by a attempt job."""
        match message:
            case Run():
                self._run(message)
            case Stop():
                self._stop(message.key, message.reason)
            case Revoke():
                held = self._held.get(message.key)
                if held is not None and held.claim():
                    self._answer(Done(message.key, revoked=True))
            case WindowUpdate():
                if (window := self._windows.get(message.key)) is not None:
                    window.ack(message.size)

    def close(self, reason: str | None = None) -> None:
        """Let `serve` end when what was received is done. With a reason: stop it, and answer for nothing any more."""
        if reason is not None:
            for attempt in list(self._held.values()):
                if not attempt.claim():
                    attempt.stop(reason)
        if self._runner is not None:
            self._pending_inputs.close(self._runner.close, wait=reason is None)

    def shutdown(self) -> None:
        """Run the shutdown hooks, send what is still to be sent, end all threads."""
        for hook in self._declared.shutdowns if self._runner is not None else ():
            try:
                self._call(hook, self.model)
            except Exception:
                log.exception("shutdown.failed")
        self._deadlines.close()
        self._downloads.close()
        self._files.close()
        self._sender.close()
        if self._owns_aio:
            self._aio.close()

    # ---------------------------------------------------------------- one job

    def _run(self, message: Run) -> None:
        try:
            attempt = self._prepared(message, self._sender, self._files)
            if self._flow_control:
                self._windows[message.key] = attempt.window = FlowWindow(window_size(self._slots.slots))
        except Exception as error:  # also what a __post_init__ of the user's input type raises
            self._sender.send(Done(message.key, error=results.outcome_of_exception(error, self._identity()).error))
            return
        self._held[message.key] = attempts_by_job_id[attempt.id] = attempt
        if attempt.fetched is None:
            self._submit(attempt)
        else:
            self._pending_inputs.begin()
            attempt.fetched.start(lambda: self._on_inputs_ready(attempt))

    def _on_inputs_ready(self, attempt: Attempt) -> None:
        """The files of the job's input are there, or one of them did not come, or the job was given up."""
        try:
            if (error := download_error(attempt)) is None:
                attempt.input_ready_at = now()
                self._submit(attempt)
            elif attempt.claim():
                self._answer(Done(attempt.key, error=results.outcome_of_exception(error, self._identity()).error))
        except ChannelClosed:  # whoever reads the channel deals with it
            log.debug("executor.agent_gone")
        finally:
            self._pending_inputs.end()

    def _submit(self, attempt: Attempt) -> None:
        assert self._runner is not None  # noqa: S101 - no job comes before Ready
        self._runner.submit(attempt)

    def _prepared(self, message: Run, sender: MessageSender, files: Files) -> Attempt:
        try:
            received = self._decode(message.body)
        except msgspec.DecodeError as error:
            raise InputError(f"the job is not JSON: {error}") from error
        if not isinstance(received, dict):
            raise InputError(f"job: expected object, got {type(received).__name__}")
        if "input" not in received:
            raise InputError("job.input is missing")
        attempt = Attempt(message, received, sender, files, FlowWindow())
        attempt.fetcher = self._downloads
        if self._declared.handler.input_type is not None:
            decode = functools.partial(self._downloads.decoded, attempt)
            attempt.input = validate(received["input"], self._declared.handler.input_type, decode=decode)
        attempt.input_ready_at = now()
        return attempt

    def _stop(self, key: str, reason: str) -> None:
        attempt = self._held.get(key)
        if attempt is None:
            return
        if attempt.claim():  # the handler was not entered, and will not be
            self._answer(Done(key, stopped=True))
        else:
            attempt.stop(reason)

    def _answer(self, done: Done) -> None:
        self._forget(self._held.pop(done.key))
        self._sender.send(done)

    def _forget(self, attempt: Attempt) -> None:
        if attempts_by_job_id.get(attempt.id) is attempt:
            del attempts_by_job_id[attempt.id]
        attempt.break_cycle()
        if attempt.fetched is not None:
            attempt.fetched.close()

    def _on_ended(self, attempt: Attempt) -> None:
        del self._held[attempt.key]
        self._forget(attempt)
        if attempt.metrics:
            log.info("job.metrics", extra={"job": attempt.id, "metrics": attempt.metrics})

    # ---------------------------------------------------------------- hooks

    def _check(self, hook: Hook) -> None:
        try:
            self._call(hook, self.model)
        except Exception as error:
            name = getattr(hook.function, "__name__", type(hook.function).__name__)
            raise CheckFailed(name, f"{type(error).__name__}: {error}") from error

    def _call(self, hook: Hook, argument: Any) -> Any:
        value = hook.call(argument)
        return self._aio.run(_awaited(value)) if inspect.isawaitable(value) else value

    def _warm_up(self) -> None:
        if not self._declared.warmups:
            return
        sender = MessageSender(_drop)
        files = SavedFiles(_drop)
        invoker = self._invoker(sender)
        for hook in self._declared.warmups:
            inputs = self._call(hook, self.model)
            for example in inputs if isinstance(inputs, list) else [] if inputs is None else [inputs]:
                self._warm_up_with(example, invoker, sender, files)
        files.close()
        sender.close()

    def _warm_up_with(self, example: Any, invoker: Invoker, sender: MessageSender, files: SavedFiles) -> None:
        body = results.encoded({"id": "warmup", "input": example}, "warmup")
        attempt = self._prepared(Run("warmup", body, now()), sender, files)
        if attempt.fetched is not None:
            arrived = threading.Event()
            attempt.fetched.start(arrived.set)
            arrived.wait()
            if error := download_error(attempt):
                raise error
        invoker.start(attempt)
        if invoker.handler.kind.on_loop:
            done = self._aio.run(invoker.run_on_loop(attempt))
        else:
            guard = MainThread()
            done = invoker.run(attempt, guard)
            guard.close()
        self._forget(attempt)
        if done.error is not None:
            raise HandlerError(f"the warm-up failed: {done.error}")

    def _invoker(self, sender: MessageSender) -> Invoker:
        return Invoker(self._declared.handler, self.model, sender, self._deadlines, self._identity(), self._aio)

    def _identity(self) -> WorkerIdentity:
        return WorkerIdentity(self._settings.hostname, self._settings.worker_id)


class PendingInputs:
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


def download_error(attempt: Attempt) -> Exception | None:
    """What to raise for a file of the job's input that did not come."""
    if attempt.fetched is None:
        return None
    return attempt.fetched.complaint(lambda source: path_to(source, attempt.job["input"]))


async def _awaited(value: Awaitable[Any]) -> Any:
    return await value


def _drop(*messages: object) -> None:
    """Warm-ups are nobody's jobs."""
