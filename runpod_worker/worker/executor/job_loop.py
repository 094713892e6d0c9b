"""The executor without its channel: loads the model, and runs the jobs that arrive as messages.

The same job loop serves an agent (main.py) and a local run in the user's own process (launch/local.py).
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

import msgspec

from runpod_worker.config import WorkerSettings, download_settings
from runpod_worker.core.dispatch.messages import Done, Ready, Revoke, Run, Stop, ToExecutor, WindowUpdate
from runpod_worker.core.errors import ChannelClosed, CheckFailed, HandlerError, InputError
from runpod_worker.core.nesting import check_depth
from runpod_worker.core.protocol import ATTEMPT_FIELDS
from runpod_worker.core.schema import validate
from runpod_worker.log import log
from runpod_worker.net.loop import loop_factory
from runpod_worker.worker.executor import device, results
from runpod_worker.worker.executor.attempt import Attempt, attempts_by_job_id, now
from runpod_worker.worker.executor.files.inputs import Downloads
from runpod_worker.worker.executor.files.outputs import SavedFiles
from runpod_worker.worker.executor.files.scratch import sweep
from runpod_worker.worker.executor.interrupt import Deadlines, guard_here
from runpod_worker.worker.executor.invoke import Invoker
from runpod_worker.worker.executor.runners import Concurrency, Runner, concurrency_of, runner_for
from runpod_worker.worker.executor.sender import MessageSender
from runpod_worker.worker.executor.window import FlowWindow, window_size
from runpod_worker.worker.handler.declaration import Declaration, Hook


class JobLoop:
    """Runs the jobs of one declared worker on one device.

    Call `load`, then `serve` in the main thread, then `shutdown`; and meanwhile `handle` and `close` in another thread.

    Args:
        declaration: the user's model and handler.
        settings: the device, the concurrency, and the ids in errors.
        send: sends messages to the agent. May wait; any thread calls it.
        keep: for a run without an agent: keeps a saved file and returns its URL. With it, input files may be local,
            and no job waits for acknowledgements of its chunks and files.
        aio: runs coroutines, and is not closed with this object; a new one by default.
    """

    def __init__(
        self,
        declaration: Declaration,
        settings: WorkerSettings,
        send: Callable[..., None],
        *,
        keep: Callable[[str, bytes], str] | None = None,
        aio: asyncio.Runner | None = None,
    ) -> None:
        self._declared = declaration
        self._settings = settings
        self._local = keep is not None
        self._sender = MessageSender(send, direct=self._local)
        self._files = SavedFiles(self._sender.send, keep)
        self._downloads = Downloads(download_settings(), local=self._local)
        self._windows: WeakValueDictionary[str, FlowWindow] = WeakValueDictionary()
        """A window lives as long as its attempt or one of its unsent files."""
        self._deadlines = Deadlines()
        self._aio = aio or asyncio.Runner(loop_factory=loop_factory(settings.uvloop))
        self._owns_aio = aio is None
        self._attempts: dict[str, Attempt] = {}
        self._decode = msgspec.json.Decoder().decode
        self.model: Any = None
        self._concurrency = Concurrency(1)
        self._runner: Runner | None = None

    def load(self) -> Ready:
        """Load the model, run checks and warm-ups. Raises their exceptions."""
        handler, hook = self._declared.handler, self._declared.model
        sweep()
        chosen = device.resolve(self._settings.device, with_torch=hook is not None and hook.arguments > 0)
        began = now()
        if hook is not None:
            self.model = self._call(hook, chosen.value)
        load_s = now() - began
        for check in self._declared.checks:
            self._check(check)
        self._warm_up()
        self._concurrency = concurrency_of(handler, self._settings)
        self._runner = runner_for(self._invoker(self._sender), self._on_ended, self._concurrency)
        return Ready(
            kind=handler.kind,
            slots=self._concurrency.slots,
            load_s=load_s,
            device=chosen.name,
            gpu=chosen.gpu,
            timeout_s=handler.timeout_s,
            aggregate=handler.aggregate,
            refresh=handler.refresh,
        )

    def serve(self) -> None:
        """Run jobs until `close`."""
        self._loaded_runner().serve()

    def wake(self) -> None:
        """Let the thread in `serve` run the handlers of signals that have arrived. From any thread."""
        self._loaded_runner().wake()

    def handle(self, message: ToExecutor) -> None:
        """Handle a message of the agent. One thread calls it; a running job does not delay it."""
        match message:
            case Run():
                self._run(message)
            case Stop() | Revoke():
                self._stop(message)
            case WindowUpdate():
                if (window := self._windows.get(message.key)) is not None:
                    window.ack(message.size)

    def close(self, reason: str | None = None) -> None:
        """Let `serve` end once all submitted jobs are done. With a reason: stop them, and answer no more."""
        if reason is not None:
            for attempt in list(self._attempts.values()):
                if not attempt.claim():
                    attempt.stop(reason)
        if self._runner is not None:
            self._runner.close()

    def shutdown(self) -> None:
        """Run the shutdown hooks, send queued messages, and end all threads."""
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

    def _run(self, run: Run) -> None:
        try:
            attempt = self._prepare(run, self._sender, self._files, self._window(run.key))
        except Exception as error:  # includes exceptions from __post_init__ of the user's input type
            self._sender.send(Done(key=run.key, error=results.outcome_of_exception(error, self._settings).error))
            return
        self._attempts[run.key] = attempts_by_job_id[attempt.id] = attempt
        if attempt.job_files is None:
            self._loaded_runner().submit(attempt)
        else:
            arrived = attempt.job_files.start(attempt.job["input"])
            arrived.add_done_callback(partial(self._on_inputs_arrived, attempt))

    def _on_inputs_arrived(self, attempt: Attempt, arrived: Future[None]) -> None:
        """Submit the job if all files of its input have arrived. Else the job fails, unless it was stopped."""
        try:
            if arrived.cancelled():
                return
            if (error := arrived.exception()) is None:
                attempt.input_ready_at = now()
                self._loaded_runner().submit(attempt)
            elif attempt.claim():
                self._answer(Done(key=attempt.key, error=results.outcome_of_exception(error, self._settings).error))
        except ChannelClosed:  # the thread that reads the channel ends the executor
            log.debug("executor.agent_gone")

    def _window(self, key: str) -> FlowWindow:
        size = math.inf if self._local else window_size(self._concurrency.slots)
        window = self._windows[key] = FlowWindow(size)
        return window

    def _prepare(self, run: Run, sender: MessageSender, files: SavedFiles, window: FlowWindow) -> Attempt:
        check_depth(run.body, InputError)
        try:
            received = self._decode(run.body)
        except msgspec.DecodeError as error:
            raise InputError(f"the job is not JSON: {error}") from error
        if not isinstance(received, dict):
            raise InputError(f"job: expected object, got {type(received).__name__}")
        if "input" not in received:
            raise InputError("job.input is missing")
        for name in ATTEMPT_FIELDS:
            received.pop(name, None)  # they belong to the agent; RunPod's service sends none of them
        attempt = Attempt(run, received, sender.put, files.save, window, self._downloads)
        if self._declared.handler.input_type is not None:
            input_type = self._declared.handler.input_type
            attempt.input = validate(received["input"], input_type, decode=attempt.decode_field)
        attempt.input_ready_at = now()
        return attempt

    def _stop(self, message: Stop | Revoke) -> None:
        attempt = self._attempts.get(message.key)
        if attempt is None:
            return
        is_stop = isinstance(message, Stop)
        if attempt.claim():  # its handler has not started, and will not
            self._answer(Done(key=message.key, stopped=is_stop, revoked=not is_stop))
        elif isinstance(message, Stop):
            attempt.stop(message.reason)

    def _answer(self, done: Done) -> None:
        self._forget(self._attempts.pop(done.key))
        self._sender.send(done)

    def _forget(self, attempt: Attempt) -> None:
        if attempts_by_job_id.get(attempt.id) is attempt:
            del attempts_by_job_id[attempt.id]
        attempt.break_cycle()
        if attempt.job_files is not None:
            attempt.job_files.close()

    def _on_ended(self, attempt: Attempt) -> None:
        del self._attempts[attempt.key]
        self._forget(attempt)
        if attempt.metrics:
            log.info("job.metrics", extra={"job": attempt.id, "metrics": attempt.metrics})

    def _loaded_runner(self) -> Runner:
        if self._runner is None:
            raise RuntimeError("JobLoop: call load() first")
        return self._runner

    # ---------------------------------------------------------------- hooks

    def _check(self, hook: Hook) -> None:
        try:
            self._call(hook, self.model)
        except Exception as error:
            name = getattr(hook.function, "__name__", type(hook.function).__name__)
            raise CheckFailed(name, f"{type(error).__name__}: {error}") from error

    def _call(self, hook: Hook, argument: Any) -> Any:
        value = hook.call(argument)
        return self._aio.run(_await(value)) if inspect.isawaitable(value) else value

    def _warm_up(self) -> None:
        if not self._declared.warmups:
            return
        sender, files = MessageSender(_drop, direct=True), SavedFiles(_drop)
        invoker = self._invoker(sender)
        for hook in self._declared.warmups:
            inputs = self._call(hook, self.model)
            for example in inputs if isinstance(inputs, list) else [] if inputs is None else [inputs]:
                body = results.encode({"id": "warmup", "input": example}, "warmup")
                self._warm_up_with(self._prepare(Run("warmup", body, now()), sender, files, FlowWindow()), invoker)
        files.close()

    def _warm_up_with(self, attempt: Attempt, invoker: Invoker) -> None:
        if attempt.job_files is not None:
            attempt.job_files.start(attempt.job["input"]).result()
        invoker.start(attempt)
        if invoker.handler.kind.on_loop:
            done = self._aio.run(invoker.run_on_loop(attempt))
        else:
            guard = guard_here()
            done = invoker.run(attempt, guard)
            guard.close()
        self._forget(attempt)
        if done.error is not None:
            raise HandlerError(f"the warm-up failed: {done.error}")

    def _invoker(self, sender: MessageSender) -> Invoker:
        return Invoker(
            self._declared.handler,
            self.model,
            sender,
            self._deadlines,
            self._settings,
            self._aio,
            local=self._local,
        )


async def _await(value: Awaitable[Any]) -> Any:
    return await value


def _drop(*messages: object) -> None:
    """Discard the messages of a warm-up, which belongs to no job."""
