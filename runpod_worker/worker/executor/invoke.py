"""Calls the handler for one attempt and makes a Done of whatever comes of it. Nothing a handler does escapes from here.

What the call returned decides: an iterator or async iterator is a stream, an awaitable is awaited, anything else is the
output. So a plain function may hand back a generator, and a decorator may hide what is behind it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from runpod_worker.core.errors import JobStopped
from runpod_worker.core.protocol import EXECUTION_TIMEOUT_ERROR
from runpod_worker.log import log
from runpod_worker.worker.executor import results
from runpod_worker.worker.executor.attempt import Attempt, now
from runpod_worker.worker.executor.deadlines import Deadlines
from runpod_worker.worker.executor.interrupt import MainThread, PoolThread, Task
from runpod_worker.worker.executor.results import Outcome, WorkerIdentity
from runpod_worker.worker.executor.sender import Chunk, MessageSender
from runpod_worker.worker.handler.kinds import Handler
from runpod_worker.worker.ipc.messages import Done, Started

FAIR_EVERY = 32
"""After so many chunks an async generator that never waits lets the other tasks of its loop run."""

_END = object()


class Invoker:
    """The handler, its model, and where its chunks go."""

    def __init__(
        self,
        handler: Handler,
        model: Any,
        sender: MessageSender,
        deadlines: Deadlines,
        identity: WorkerIdentity,
        aio: asyncio.Runner,
    ) -> None:
        """`aio`: the main thread's event loop."""
        self.handler = handler
        self._model = (model,) if handler.takes_model else ()
        self._sender = sender
        self._deadlines = deadlines
        self._identity = identity
        self._aio = aio

    def start(self, attempt: Attempt) -> Started:
        """The handler is about to be entered: the clocks start."""
        attempt.started_at = now()
        self._set_deadline(attempt)
        self._deadlines.add(attempt)
        return Started(attempt.key, attempt.started_at)

    # ---------------------------------------------------------------- in a thread

    def run(self, attempt: Attempt, guard: MainThread | PoolThread) -> Done:
        """Call the handler here, and return when it ended."""
        stream = _Stream(attempt, aggregate=self.handler.aggregate)
        try:
            value = guard.call(attempt, self.handler.function, attempt.job, *self._model)
            finished_at = now()
            if isinstance(value, Iterator):
                self._iterate(stream, guard, value)
                return self._streamed(stream)
            if isinstance(value, Awaitable | AsyncIterator):
                return self._awaited(attempt, value)
            return self._done(attempt, results.outcome_of_return(value), finished_at)
        except BaseException as error:
            return self._done(attempt, results.outcome_of_exception(error, self._identity), now())

    def _awaited(self, attempt: Attempt, value: Any) -> Done:
        """A plain function handed back something to await. In the main thread always on the same loop: what the
        handler keeps from job to job, such as a session, belongs to it."""
        work = self._run_on_loop(attempt, lambda: value)
        if threading.current_thread() is threading.main_thread():
            return self._aio.run(work)
        return asyncio.run(work)

    def _iterate(self, stream: _Stream, guard: MainThread | PoolThread, values: Iterator[Any]) -> None:
        try:
            while (value := guard.call(stream.attempt, next, values, _END)) is not _END:
                if stream.ends_with(value):
                    break
                self._push(stream.chunk(value))
        except BaseException as error:
            stream.fail(results.outcome_of_exception(error, self._identity))
        _end(values, stream.attempt)

    def _push(self, chunk: Chunk) -> None:
        window = chunk.attempt.window
        window.add(len(chunk.data))
        self._sender.push(chunk)
        window.wait()

    # ---------------------------------------------------------------- on an event loop

    async def run_on_loop(self, attempt: Attempt) -> Done:
        """Call the handler in this task, and return when it ended."""
        return await self._run_on_loop(attempt, self.handler.function, attempt.job, *self._model)

    async def _run_on_loop(self, attempt: Attempt, function: Callable[..., Any], *args: Any) -> Done:
        stream = _Stream(attempt, aggregate=self.handler.aggregate)
        guard = Task()
        try:
            value = await guard.call(attempt, function, *args)
            finished_at = now()
            if isinstance(value, Iterator | AsyncIterator):
                await self._iterate_on_loop(stream, guard, value)
                return self._streamed(stream)
            return self._done(attempt, results.outcome_of_return(value), finished_at)
        except BaseException as error:
            _take_back_cancel(error)
            return self._done(attempt, results.outcome_of_exception(error, self._identity), now())

    async def _iterate_on_loop(self, stream: _Stream, guard: Task, values: Iterator[Any] | AsyncIterator[Any]) -> None:
        step: Callable[..., Any] = anext if isinstance(values, AsyncIterator) else next
        try:
            while (value := await guard.call(stream.attempt, step, values, _END)) is not _END:
                if stream.ends_with(value):
                    break
                await self._put(stream.chunk(value))
        except BaseException as error:
            _take_back_cancel(error)
            stream.fail(results.outcome_of_exception(error, self._identity))
        await _end_on_loop(values, stream.attempt)

    async def _put(self, chunk: Chunk) -> None:
        window = chunk.attempt.window
        window.add(len(chunk.data))
        self._sender.put(chunk)
        if self._sender.must_flush(chunk):
            await asyncio.get_running_loop().run_in_executor(None, self._sender.send)
        elif chunk.index % FAIR_EVERY == 0:
            await asyncio.sleep(0)
        if not window.is_open:
            await window.wait_async()

    # ---------------------------------------------------------------- the end

    def _streamed(self, stream: _Stream) -> Done:
        return self._done(stream.attempt, stream.outcome(), now(), is_stream=True)

    def _done(self, attempt: Attempt, outcome: Outcome, finished_at: float, *, is_stream: bool = False) -> Done:
        self._deadlines.remove(attempt)
        return attempt.done(outcome, finished_at, is_stream=is_stream)

    def _set_deadline(self, attempt: Attempt) -> None:
        if attempt.run.timeout_s is not None:
            attempt.deadline = attempt.run.taken_at + attempt.run.timeout_s
            attempt.limit = EXECUTION_TIMEOUT_ERROR
        limit = self.handler.timeout_s
        if limit is not None and (attempt.deadline is None or attempt.started_at + limit < attempt.deadline):
            attempt.deadline = attempt.started_at + limit
            attempt.limit = f"the handler's timeout of {limit:g} s exceeded"


class _Stream:
    """What a generator yielded so far. Chunks are kept, encoded, only when they make up the output as well."""

    def __init__(self, attempt: Attempt, *, aggregate: bool) -> None:
        self.attempt = attempt
        self._index = 0
        self._kept: list[bytes] | None = [] if aggregate else None
        self._error: str | None = None

    def chunk(self, value: Any) -> Chunk:
        """The next chunk. Raises OutputError when the value is not JSON."""
        data = results.chunk(value)
        index = self._index
        self._index += 1
        if index == 0:
            self.attempt.first_chunk_at = now()
        if self._kept is not None:
            self._kept.append(data)
        return Chunk(self.attempt, index, data)

    def ends_with(self, value: Any) -> bool:
        """Whether the value is an error instead of a chunk, which ends the stream."""
        self._error = results.yielded_error(value)
        return self._error is not None

    def fail(self, outcome: Outcome) -> None:
        """The generator raised."""
        self._error = outcome.error

    def outcome(self) -> Outcome:
        """What the stream came to."""
        return results.outcome_of_stream(self._kept, self._error)


def _end(values: Iterator[Any], attempt: Attempt) -> None:
    """Let a generator that did not run to its end clean up. A stopped one sees JobStopped where it waits."""
    throw = getattr(values, "throw", None)
    close = getattr(values, "close", None)
    try:
        if attempt.reason is not None and throw is not None:
            throw(JobStopped(attempt.reason))
        if close is not None:
            close()
    except (StopIteration, JobStopped):
        return
    except BaseException:
        log.warning("handler.cleanup_failed", exc_info=True)


async def _end_on_loop(values: Iterator[Any] | AsyncIterator[Any], attempt: Attempt) -> None:
    if isinstance(values, Iterator):
        _end(values, attempt)
        return
    close = getattr(values, "aclose", None)
    try:
        if close is not None:
            await close()
    except BaseException:
        log.warning("handler.cleanup_failed", exc_info=True)


def _take_back_cancel(error: BaseException) -> None:
    """The task goes on after its handler was cancelled: it has a Done to send."""
    task = asyncio.current_task()
    if isinstance(error, asyncio.CancelledError) and task is not None:
        task.uncancel()
