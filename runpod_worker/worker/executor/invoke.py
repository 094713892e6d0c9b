"""Calls the handler for an attempt and turns its outcome into a Done message. No error of a handler escapes.

The returned value decides: an iterator or async iterator is a stream, an awaitable is awaited, anything else is the
output. So a plain function may return a generator, and a decorator may hide the kind of the function behind it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from runpod_worker.config import WorkerSettings
from runpod_worker.core.dispatch.messages import Done, Started
from runpod_worker.core.dispatch.values import Outcome
from runpod_worker.core.errors import JobStopped, OutputError
from runpod_worker.core.protocol import MAX_RESULT_BYTES, MIB
from runpod_worker.log import log
from runpod_worker.worker.executor import results
from runpod_worker.worker.executor.attempt import Attempt, now
from runpod_worker.worker.executor.interrupt import Deadlines, SlotThread, Task
from runpod_worker.worker.executor.sender import Chunk, MessageSender
from runpod_worker.worker.handler.declaration import Handler

YIELD_EVERY = 32
"""Chunks. After this many, a generator that never waits lets the other tasks of its loop run."""

_END = object()


class Invoker:
    """Calls the handler with its model, and sends its chunks."""

    def __init__(
        self,
        handler: Handler,
        model: Any,
        sender: MessageSender,
        deadlines: Deadlines,
        settings: WorkerSettings,
        aio: asyncio.Runner,
        *,
        local: bool = False,
    ) -> None:
        """`aio`: the main thread's event loop. `local`: there is no agent, and Ctrl-C ends this process."""
        self.handler = handler
        self._model = (model,) if handler.takes_model else ()
        self.sender = sender
        self._deadlines = deadlines
        self._settings = settings
        self.aio = aio
        self._local = local

    def start(self, attempt: Attempt) -> Started:
        """Start the attempt's clocks, just before the handler is called."""
        attempt.started_at = now()
        limit = self.handler.timeout_s
        if limit is not None and (attempt.deadline is None or attempt.started_at + limit < attempt.deadline):
            attempt.deadline = attempt.started_at + limit
            attempt.deadline_error = f"the handler's timeout of {limit:g} s exceeded"
        self._deadlines.add(attempt)
        return Started(attempt.key, attempt.started_at)

    # ---------------------------------------------------------------- in a thread

    def run(self, attempt: Attempt, guard: SlotThread) -> Done:
        """Call the handler in this thread, and return once it has ended."""
        try:
            value = guard.call(attempt, self.handler.function, attempt.job, *self._model)
            finished_at = now()
            if isinstance(value, Iterator):
                return self._done(attempt, self._iterate(attempt, guard, value), now(), is_stream=True)
            if isinstance(value, Awaitable | AsyncIterator):
                return self._await(attempt, value)
            return self._done(attempt, results.outcome_of_return(value), finished_at)
        except BaseException as error:
            self._raise_interrupt(error)
            return self._done(attempt, results.outcome_of_exception(error, self._settings), now())

    def _raise_interrupt(self, error: BaseException) -> None:
        """Let Ctrl-C end a run in the user's own process. An executor ignores SIGINT: there the job fails."""
        if self._local and isinstance(error, KeyboardInterrupt):
            raise error

    def _await(self, attempt: Attempt, value: Any) -> Done:
        """Await the awaitable that a plain function returned.

        The main thread always uses the same loop, because objects that the handler keeps, such as a session, belong to
        that loop.
        """
        work = self.run_on_loop(attempt, lambda *_: value)
        if threading.current_thread() is threading.main_thread():
            return self.aio.run(work)
        return asyncio.run(work)

    def _iterate(self, attempt: Attempt, guard: SlotThread, values: Iterator[Any]) -> Outcome:
        stream = _Stream(attempt, self.handler)
        try:
            while chunk := stream.chunk(guard.call(attempt, next, values, _END)):
                is_open = attempt.window.add(len(chunk.data))
                self.sender.push(chunk)
                if not is_open:
                    attempt.window.wait()
        except BaseException as error:
            self._raise_interrupt(error)
            stream.error = results.outcome_of_exception(error, self._settings).error
        _close(values, attempt)
        return stream.outcome()

    # ---------------------------------------------------------------- on an event loop

    async def run_on_loop(self, attempt: Attempt, function: Callable[..., Any] | None = None) -> Done:
        """Call the handler, or this function in its place, in this task, and return once it has ended."""
        guard = Task()
        try:
            value = await guard.call(attempt, function or self.handler.function, attempt.job, *self._model)
            finished_at = now()
            if isinstance(value, Iterator | AsyncIterator):
                return self._done(attempt, await self._iterate_on_loop(attempt, guard, value), now(), is_stream=True)
            return self._done(attempt, results.outcome_of_return(value), finished_at)
        except BaseException as error:
            _uncancel(error)
            return self._done(attempt, results.outcome_of_exception(error, self._settings), now())

    async def _iterate_on_loop(
        self, attempt: Attempt, guard: Task, values: Iterator[Any] | AsyncIterator[Any]
    ) -> Outcome:
        stream = _Stream(attempt, self.handler)
        step: Callable[..., Any] = anext if isinstance(values, AsyncIterator) else next
        try:
            while chunk := stream.chunk(await guard.call(attempt, step, values, _END)):
                await self._push_on_loop(chunk)
        except BaseException as error:
            _uncancel(error)
            stream.error = results.outcome_of_exception(error, self._settings).error
        await _close_on_loop(values, attempt)
        return stream.outcome()

    async def _push_on_loop(self, chunk: Chunk) -> None:
        is_open = chunk.attempt.window.add(len(chunk.data))
        self.sender.put(chunk)
        if self.sender.must_flush(chunk):
            await asyncio.get_running_loop().run_in_executor(None, self.sender.send)
        elif chunk.index % YIELD_EVERY == 0:
            await asyncio.sleep(0)
        if not is_open:
            await chunk.attempt.window.wait_async()

    # ---------------------------------------------------------------- the end

    def _done(self, attempt: Attempt, outcome: Outcome, finished_at: float, *, is_stream: bool = False) -> Done:
        self._deadlines.remove(attempt)
        return attempt.done(outcome, finished_at, is_stream=is_stream)


class _Stream:
    """The chunks of a generator so far. Keeps them, encoded, only if they are also the output.

    They are, if the handler aggregates them, or if it is no generator itself and returned an iterator, such as a `map`:
    its caller expects an output. Such chunks are no output when they are too large for one.
    """

    def __init__(self, attempt: Attempt, handler: Handler) -> None:
        self.error: str | None = None
        self._attempt = attempt
        self._aggregate = handler.aggregate
        self._index = 0
        self._kept: list[bytes] | None = [] if handler.aggregate or not handler.kind.is_generator else None
        self._kept_bytes = 0

    def chunk(self, value: Any) -> Chunk | None:
        """The next chunk; None where the stream ends: after its last value, or with an error.

        Raises:
            OutputError: the value is not JSON, or too large together with the others.
        """
        if value is _END:
            return None
        self.error = results.yielded_error(value)
        if self.error is not None:
            return None
        data = results.encode_chunk(value)
        index = self._index
        self._index += 1
        if index == 0:
            self._attempt.first_chunk_at = now()
        if self._kept is not None:
            self._keep(self._kept, data)
        return Chunk(self._attempt, index, data)

    def _keep(self, kept: list[bytes], data: bytes) -> None:
        kept.append(data)
        self._kept_bytes += len(data) + 1
        if self._kept_bytes >= MAX_RESULT_BYTES:
            self._kept = None
            if self._aggregate:
                text = f"the chunks together exceed {MAX_RESULT_BYTES // MIB} MiB of JSON, which no job service takes"
                raise OutputError(f"{text} as an output: save large parts as files with job.save, or do not aggregate")

    def outcome(self) -> Outcome:
        """The outcome of the stream, once it has ended."""
        return results.outcome_of_stream(self._kept, self.error)


def _close(values: Iterator[Any], attempt: Attempt) -> None:
    """Let a generator that did not run to its end clean up. A stopped one sees JobStopped at its yield."""
    throw = getattr(values, "throw", None)
    close = getattr(values, "close", None)
    try:
        if attempt.stop_reason is not None and throw is not None:
            throw(JobStopped(attempt.stop_reason))
        if close is not None:
            close()
    except (StopIteration, JobStopped):
        return
    except BaseException:
        log.warning("handler.cleanup_failed", exc_info=True)


async def _close_on_loop(values: Iterator[Any] | AsyncIterator[Any], attempt: Attempt) -> None:
    if isinstance(values, Iterator):
        _close(values, attempt)
        return
    close = getattr(values, "aclose", None)
    try:
        if close is not None:
            await close()
    except BaseException:
        log.warning("handler.cleanup_failed", exc_info=True)


def _uncancel(error: BaseException) -> None:
    """Let the task continue after its handler was cancelled: it has a Done to send."""
    task = asyncio.current_task()
    if isinstance(error, asyncio.CancelledError) and task is not None:
        task.uncancel()
