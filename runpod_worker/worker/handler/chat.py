"""Answer OpenAI clients: a handler yields text, this makes chat completions of it, in one body or as a stream.

    from runpod_worker import Worker, openai

    worker = Worker()

    @worker.handler
    @openai.chat(models=["my-model"])
    def handler(request, model):                    # handler(request) alone works too
        for word in model.answer(request.messages):
            yield word                              # or return the whole text

It answers `/v1/chat/completions` and `/v1/models`, and a plain job whose input is the body of a chat completion.
Functions, coroutines, generators and async generators; `worker.handler(concurrency=8)` as always.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, TypeVar

import msgspec

from runpod_worker.core.errors import DeclarationError, HandlerError
from runpod_worker.worker.handler.job import Job
from runpod_worker.worker.handler.kinds import Kind, kind_of

F = TypeVar("F", bound=Callable[..., Any])
Clock = Callable[[], float]

CHAT, MODELS = "/v1/chat/completions", "/v1/models"

DONE = "data: [DONE]\n\n"


class Error(HandlerError):
    """An error in OpenAI's shape; the caller's library raises the exception that belongs to `status`.

    Args:
        message: what went wrong, for the caller.
        status: the HTTP status, 400 to 599.
        kind: OpenAI's `type`.
        code: OpenAI's `code`, by which programs tell errors apart.
        param: the field of the request that is wrong.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.body = {"message": message, "type": kind, "param": param, "code": code, "status": status}


class ChatRequest:
    """One request for a chat completion. `body` is all that the caller sent, `job` the job it came with."""

    def __init__(self, body: dict[str, Any], job: Job[Any], model: str) -> None:
        self.body = body
        self.job = job
        self.model = model
        self.messages: list[dict[str, Any]] = body["messages"]
        self.stream = body.get("stream") is True
        self.finish_reason = "stop"
        self.usage: dict[str, int] | None = None

    def get(self, name: str, default: Any = None) -> Any:
        """A field of the body, such as `temperature`; `default` when it is missing or null."""
        value = self.body.get(name)
        return default if value is None else value

    def finish(
        self, reason: str = "stop", *, prompt_tokens: int | None = None, completion_tokens: int | None = None
    ) -> None:
        """Say why the text ends ("stop", "length", ...), and how many tokens it took if you count them."""
        self.finish_reason = reason
        if prompt_tokens is not None or completion_tokens is not None:
            prompt, completion = prompt_tokens or 0, completion_tokens or 0
            total = prompt + completion
            self.usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total}


def chat(*, models: Sequence[str], now: Clock = time.time) -> Callable[[F], F]:  # noqa: TID251 - shown to callers only
    """Make a handler for `@worker.handler` of a function that answers one `ChatRequest`.

    It returns or yields text; or dicts, which are OpenAI's `delta` (`{"tool_calls": [...]}`). It raises `openai.Error`
    for what the caller did wrong.

    Args:
        models: the names callers may ask for; the first is taken for those who name none.
        now: the clock that `created` is read from.

    Raises:
        DeclarationError: there is no model name, or what is decorated is no function.
    """
    names = list(models)
    if isinstance(models, str) or not names or not all(names):
        raise DeclarationError(f"models: expected a list of at least one name, got {models!r}")

    def decorate(function: F) -> F:
        if not callable(function):
            raise DeclarationError(f"expected a function chat(request), got {function!r} ({type(function).__name__})")
        wrap = _on_loop if kind_of(function).on_loop else _in_thread
        return wrap(function, _Desk(names, now))  # type: ignore[return-value]

    return decorate


def _in_thread(function: Callable[..., Any], desk: _Desk) -> Callable[..., Any]:
    @functools.wraps(function)
    def handler(job: Job[Any], *model: Any) -> Iterator[Any]:
        try:
            request = desk.read(job)
            if request is None:
                yield desk.models()
                return
            answer = _Answer(request, desk.created())
            given = function(request, *model)
            if not isinstance(given, Iterator):
                given = iter((given,))
            try:
                for piece in given:
                    yield from answer.take(piece)
            finally:
                getattr(given, "close", _nothing)()
            yield from answer.end()
        except Error as error:
            yield {"error": error.body}

    return handler


def _nothing() -> None:
    """An iterator that need not be closed."""


def _on_loop(function: Callable[..., Any], desk: _Desk) -> Callable[..., Any]:
    is_stream = kind_of(function) is Kind.ASYNC_GENERATOR

    @functools.wraps(function)
    async def handler(job: Job[Any], *model: Any) -> AsyncIterator[Any]:
        try:
            request = desk.read(job)
            if request is None:
                yield desk.models()
                return
            answer = _Answer(request, desk.created())
            given = function(request, *model)
            if is_stream:
                async with contextlib.aclosing(given) as pieces:
                    async for piece in pieces:
                        for chunk in answer.take(piece):
                            yield chunk
            else:
                for chunk in answer.take(await given):
                    yield chunk
            for chunk in answer.end():
                yield chunk
        except Error as error:
            yield {"error": error.body}

    return handler


class _Desk:
    """Where requests come in: which route, which model, and whether they can be answered."""

    def __init__(self, names: list[str], now: Clock) -> None:
        self._names = names
        self._now = now
        self._since = int(now())

    def created(self) -> int:
        return int(self._now())

    def models(self) -> dict[str, Any]:
        listed = [
            {"id": name, "object": "model", "created": self._since, "owned_by": "runpod-worker"} for name in self._names
        ]
        return {"object": "list", "data": listed}

    def read(self, job: Job[Any]) -> ChatRequest | None:
        """The request for a chat completion; None when the models are asked for."""
        asked = job["input"]
        route, body = CHAT, asked
        if isinstance(asked, dict) and "openai_route" in asked:
            route, body = asked["openai_route"], asked.get("openai_input")
        if route == MODELS:
            return None
        if route != CHAT:
            raise Error(f"this endpoint answers {CHAT} and {MODELS}, not {route}", status=404, kind="not_found_error")
        return self._checked(body, job)

    def _checked(self, body: Any, job: Job[Any]) -> ChatRequest:
        if not isinstance(body, dict):
            raise Error(f"body: expected a JSON object with messages, got {type(body).__name__}")
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages or not all(isinstance(one, dict) for one in messages):
            raise Error("messages: expected a list of at least one message", param="messages")
        if body.get("n") not in (None, 1):
            raise Error(f"n: only one choice is made, got {body['n']!r}", param="n")
        model = body.get("model") or self._names[0]
        if model not in self._names:
            known = ", ".join(self._names)
            message = f"the model {model!r} does not exist here; there is {known}"
            raise Error(message, status=404, kind="not_found_error", code="model_not_found", param="model")
        return ChatRequest(body, job, model)


class _Answer:
    """Makes chunks of what the function gives: events when a stream was asked for, else one body at the end."""

    def __init__(self, request: ChatRequest, created: int) -> None:
        self._request = request
        self._head = {"id": f"chatcmpl-{request.job.get('id', '')}", "created": created, "model": request.model}
        self._message: dict[str, Any] = {"role": "assistant", "content": None}
        self._begun = False

    def take(self, piece: Any) -> Iterator[str]:
        """Events for a piece of the answer, none when all goes into one body."""
        if inspect.isawaitable(piece) or not isinstance(piece, str | dict):
            raise TypeError(f"a chat answers with str, or dict for a delta; got {type(piece).__name__}")
        delta = {"content": piece} if isinstance(piece, str) else piece
        if not self._request.stream:
            self._add(delta)
            return
        if not self._begun:
            self._begun = True
            yield self._event({"role": "assistant", "content": ""})
        if delta.get("content") != "" or len(delta) > 1:
            yield self._event(delta)

    def end(self) -> Iterator[Any]:
        """The last chunks; without a stream the only one."""
        request = self._request
        if not request.stream:
            choice = {"index": 0, "message": self._message, "logprobs": None, "finish_reason": request.finish_reason}
            usage = {"usage": request.usage} if request.usage else {}
            yield {**self._head, "object": "chat.completion", "choices": [choice], **usage}
            return
        if not self._begun:
            yield self._event({"role": "assistant", "content": ""})
        yield self._event({}, request.finish_reason)
        options = request.get("stream_options", {})
        if request.usage and isinstance(options, dict) and options.get("include_usage"):
            yield self._line([], {"usage": request.usage})
        yield DONE

    def _add(self, delta: dict[str, Any]) -> None:
        for name, value in delta.items():
            held = self._message.get(name)
            together = held is not None and name != "role" and isinstance(value, str | list)
            self._message[name] = held + value if together else value

    def _event(self, delta: dict[str, Any], finish_reason: str | None = None) -> str:
        return self._line([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}], {})

    def _line(self, choices: list[Any], more: dict[str, Any]) -> str:
        told = {**self._head, "object": "chat.completion.chunk", "choices": choices, **more}
        return f"data: {msgspec.json.encode(told).decode()}\n\n"
