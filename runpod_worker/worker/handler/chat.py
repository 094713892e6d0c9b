"""Answers OpenAI clients: turns the text that a handler yields into chat completions, whole or streamed.

    from runpod_worker import Worker, openai

    worker = Worker()

    @worker.handler
    @openai.chat(models=["my-model"])
    def handler(request, model):                    # handler(request) works too
        for word in model.answer(request.messages):
            yield word                              # or return the text

The handler answers `/v1/chat/completions`, `/v1/models`, and plain jobs whose input is the body of a chat completion.
It may be a function, coroutine, generator or async generator, and `worker.handler` takes its usual options.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

import msgspec

from runpod_worker.core.errors import DeclarationError, HandlerError, InputError
from runpod_worker.core.schema import validate
from runpod_worker.worker.handler.declaration import WRAPPING_FILES, Kind, kind_of
from runpod_worker.worker.handler.job import Job

WRAPPING_FILES.add(__file__)

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
Clock = Callable[[], float]

CHAT, MODELS = "/v1/chat/completions", "/v1/models"

DONE = "data: [DONE]\n\n"


class Error(HandlerError):
    """An error in OpenAI's form. The client library raises its exception for `status`.

    Args:
        message: the explanation for the caller.
        status: the HTTP status, 400 to 599.
        kind: OpenAI's `type`.
        code: OpenAI's `code`, for programs.
        param: the wrong field of the request.
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


def _in_openai_form(error: HandlerError) -> Error:
    """The error for the caller; an InputError is the caller's mistake. Raises any other error."""
    if isinstance(error, Error):
        return error
    if isinstance(error, InputError):
        return Error(str(error))
    raise error


class ChatRequest:
    """A request for a chat completion. `body` is the whole request, `job` its job."""

    def __init__(self, body: dict[str, Any], job: Job[Any], model: str) -> None:
        self.body = body
        self.job = job
        self.model = model
        self.messages: list[dict[str, Any]] = body["messages"]
        self.stream = body.get("stream") is True
        self.finish_reason = "stop"
        self.usage: dict[str, int] | None = None

    def get(self, name: str, default: Any = None) -> Any:
        """A field of the body, such as `temperature`; `default` if the field is missing or null."""
        value = self.body.get(name)
        return default if value is None else value

    def options(self, kind: type[T]) -> T:
        """The body as `kind`: a msgspec struct, dataclass, TypedDict or pydantic model. Ignores fields not in `kind`.

        Raises:
            InputError: a field does not fit. If the handler does not catch it, the caller gets a reply with status 400.
        """
        return cast(T, validate(self.body, kind, "body"))

    def finish(
        self, reason: str = "stop", *, prompt_tokens: int | None = None, completion_tokens: int | None = None
    ) -> None:
        """Set the finish reason ("stop", "length", ...), and the usage if you count tokens."""
        self.finish_reason = reason
        if prompt_tokens is not None or completion_tokens is not None:
            prompt, completion = prompt_tokens or 0, completion_tokens or 0
            total = prompt + completion
            self.usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total}


def chat(*, models: Sequence[str], now: Clock = time.time) -> Callable[[F], F]:  # noqa: TID251 - only shown to callers
    """Turn a function that answers a `ChatRequest` into a handler for `@worker.handler`.

    The function returns or yields text, or dicts, which become OpenAI's `delta` (`{"tool_calls": [...]}`). For a
    mistake of the caller it raises `openai.Error`.

    Args:
        models: the model names that callers may use; the first is the default.
        now: the clock for `created`.

    Raises:
        DeclarationError: `models` is empty, or the decorated object is not a function.
    """
    names = list(models)
    if isinstance(models, str) or not names or not all(names):
        raise DeclarationError(f"models: expected a list of at least one name, got {models!r}")

    def decorate(function: F) -> F:
        if not callable(function):
            raise DeclarationError(f"expected a function chat(request), got {function!r} ({type(function).__name__})")
        wrap = _on_loop if kind_of(function).on_loop else _in_thread
        return wrap(function, _Requests(names, now))  # type: ignore[return-value]

    return decorate


def _in_thread(function: Callable[..., Any], requests: _Requests) -> Callable[..., Any]:
    @functools.wraps(function)
    def handler(job: Job[Any], *model: Any) -> Iterator[Any]:
        try:
            answer = requests.read(job)
            if answer is None:
                yield requests.models()
                return
            output = function(answer.request, *model)
            if not isinstance(output, Iterator):
                output = iter((output,))
            try:
                for piece in output:
                    yield from answer.add(piece)
            finally:
                if hasattr(output, "close"):
                    output.close()
            yield from answer.end()
        except HandlerError as error:
            yield {"error": _in_openai_form(error).body}

    return handler


def _on_loop(function: Callable[..., Any], requests: _Requests) -> Callable[..., Any]:
    is_stream = kind_of(function) is Kind.ASYNC_GENERATOR

    @functools.wraps(function)
    async def handler(job: Job[Any], *model: Any) -> AsyncIterator[Any]:
        try:
            answer = requests.read(job)
            if answer is None:
                yield requests.models()
                return
            output = function(answer.request, *model)
            if is_stream:
                async with contextlib.aclosing(output) as pieces:
                    async for piece in pieces:
                        for chunk in answer.add(piece):
                            yield chunk
            else:
                for chunk in answer.add(await output):
                    yield chunk
            for chunk in answer.end():
                yield chunk
        except HandlerError as error:
            yield {"error": _in_openai_form(error).body}

    return handler


class _Requests:
    """Reads requests: their route, their model, and whether they are valid."""

    def __init__(self, names: list[str], now: Clock) -> None:
        self._names = names
        self._now = now
        self._since = int(now())

    def models(self) -> dict[str, Any]:
        listed = [
            {"id": name, "object": "model", "created": self._since, "owned_by": "runpod-worker"} for name in self._names
        ]
        return {"object": "list", "data": listed}

    def read(self, job: Job[Any]) -> _Answer | None:
        """The empty answer to a request for a chat completion; None for a request for the models.

        Raises:
            Error: the route is unknown, or the body is invalid.
        """
        received = job["input"]
        route, body = CHAT, received
        if isinstance(received, dict) and "openai_route" in received:
            route, body = received["openai_route"], received.get("openai_input")
        if route == MODELS:
            return None
        if route != CHAT:
            raise Error(f"this endpoint answers {CHAT} and {MODELS}, not {route}", status=404, kind="not_found_error")
        if not isinstance(body, dict):
            raise Error(f"body: expected a JSON object with messages, got {type(body).__name__}")
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages or not all(isinstance(message, dict) for message in messages):
            raise Error("messages: expected a list of at least one message", param="messages")
        if body.get("n") not in (None, 1):
            raise Error(f"n: expected 1, got {body['n']!r}", param="n")
        model = body.get("model") or self._names[0]
        if model not in self._names:
            known = ", ".join(self._names)
            text = f"the model {model!r} does not exist here; expected one of {known}"
            raise Error(text, status=404, kind="not_found_error", code="model_not_found", param="model")
        return _Answer(ChatRequest(body, job, model), int(self._now()))


class _Answer:
    """Turns the output of the function into chunks: events for a stream, or a body at the end."""

    def __init__(self, request: ChatRequest, created: int) -> None:
        self.request = request
        self._head = {"id": f"chatcmpl-{request.job.get('id', '')}", "created": created, "model": request.model}
        self._message: dict[str, Any] = {"role": "assistant", "content": None}
        self._begun = False

    def add(self, piece: Any) -> Iterator[str]:
        """Add a piece of the answer. Yield its events if the request is streamed, else nothing."""
        if inspect.isawaitable(piece) or not isinstance(piece, str | dict):
            raise TypeError(f"a chat answer: expected str, or dict for a delta, got {type(piece).__name__}")
        delta = {"content": piece} if isinstance(piece, str) else piece
        if not self.request.stream:
            self._merge(delta)
            return
        if not self._begun:
            self._begun = True
            yield self._event({"role": "assistant", "content": ""})
        if delta.get("content") != "" or len(delta) > 1:
            yield self._event(delta)

    def end(self) -> Iterator[Any]:
        """Yield the last chunks of a stream, or the body of a whole answer."""
        request = self.request
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
            yield self._line([], usage=request.usage)
        yield DONE

    def _merge(self, delta: dict[str, Any]) -> None:
        for name, value in delta.items():
            before = self._message.get(name)
            joined = before is not None and name != "role" and isinstance(value, str | list)
            self._message[name] = before + value if joined else value

    def _event(self, delta: dict[str, Any], finish_reason: str | None = None) -> str:
        return self._line([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}])

    def _line(self, choices: list[Any], **more: Any) -> str:
        chunk = {**self._head, "object": "chat.completion.chunk", "choices": choices, **more}
        return f"data: {msgspec.json.encode(chunk).decode()}\n\n"
