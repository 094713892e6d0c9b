"""`openai.chat`: the chunks of a handler for chat completions, without a service."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
import pytest

import runpod_worker
from runpod_worker import DeclarationError, Job, Worker, openai
from runpod_worker.worker.handler.declaration import Kind, make_handler

HELLO = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
CHUNK = {"id": "chatcmpl-j", "object": "chat.completion.chunk", "created": 7, "model": "tiny"}


def chat(function: Any) -> Any:
    return openai.chat(models=["tiny", "small"], now=lambda: 7.9)(function)


def ask(handler: Any, body: Any, *model: Any, route: str = "/v1/chat/completions") -> list[Any]:
    """All that the handler yields."""
    source = {"openai_route": route} | ({} if body is None else {"openai_input": body})
    return collect(handler, Job({"id": "j", "input": source}), *model)


def collect(handler: Any, job: Job[Any], *model: Any) -> list[Any]:
    given = handler(job, *model)
    if inspect.isasyncgen(given):

        async def all_of_it() -> list[Any]:
            return [piece async for piece in given]

        return asyncio.run(all_of_it())
    return list(given)


def events(chunks: list[Any]) -> list[Any]:
    """What an event stream says; checks that it ends as one."""
    assert chunks[-1] == "data: [DONE]\n\n"
    assert all(chunk.startswith("data: ") and chunk.endswith("\n\n") for chunk in chunks)
    return [json.loads(chunk[6:]) for chunk in chunks[:-1]]


def function(request: openai.ChatRequest) -> str:
    return "Hello!"


async def coroutine(request: openai.ChatRequest) -> str:
    return "Hello!"


def generator(request: openai.ChatRequest) -> Iterator[str]:
    yield "Hel"
    yield "lo!"


async def async_generator(request: openai.ChatRequest) -> Any:
    yield "Hel"
    yield "lo!"


@pytest.mark.parametrize("answer", [function, coroutine, generator, async_generator])
def test_every_kind_of_handler_answers_in_one_body_or_as_a_stream(answer: Any) -> None:
    message = {"role": "assistant", "content": "Hello!"}
    [whole] = ask(chat(answer), HELLO)
    streamed = events(ask(chat(answer), HELLO | {"stream": True}))

    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    assert whole == CHUNK | {"object": "chat.completion", "choices": [choice]}
    assert all(event.items() >= CHUNK.items() for event in streamed)
    assert streamed[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in streamed) == "Hello!"
    assert [event["choices"][0]["finish_reason"] for event in streamed][-2:] == [None, "stop"]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (function, Kind.GENERATOR),
        (generator, Kind.GENERATOR),
        (coroutine, Kind.ASYNC_GENERATOR),
        (async_generator, Kind.ASYNC_GENERATOR),
    ],
)
def test_it_is_a_handler_of_the_kind_it_was(answer: Any, kind: Kind) -> None:
    assert make_handler(chat(answer)).kind is kind


def test_it_takes_the_model_when_the_function_does() -> None:
    def answer(request: openai.ChatRequest, model: str) -> str:
        return model

    assert make_handler(chat(answer)).takes_model
    assert not make_handler(chat(function)).takes_model
    assert ask(chat(answer), HELLO, "the model")[0]["choices"][0]["message"]["content"] == "the model"


def test_models_are_listed() -> None:
    [listed] = ask(chat(function), None, route="/v1/models")

    assert [model["id"] for model in listed["data"]] == ["tiny", "small"]
    assert listed["data"][0] == {"id": "tiny", "object": "model", "created": 7, "owned_by": "runpod-worker"}


def test_a_plain_job_with_the_body_as_its_input_works_too() -> None:
    [whole] = collect(chat(function), Job({"id": "j", "input": {"messages": HELLO["messages"]}}))

    assert (whole["model"], whole["choices"][0]["message"]["content"]) == ("tiny", "Hello!")


def test_the_request_gives_what_the_caller_sent() -> None:
    seen = []

    def answer(request: openai.ChatRequest) -> str:
        sampling = request.get("temperature", 0.5), request.get("top_p", 0.9), request.get("seed")
        seen.append((request.messages, request.model, request.stream, request.job.id, sampling))
        return ""

    ask(chat(answer), HELLO | {"temperature": 0, "top_p": None})

    assert seen == [(HELLO["messages"], "tiny", False, "j", (0, 0.9, None))]


def test_usage_and_finish_reason_are_told_when_the_handler_tells_them() -> None:
    def answer(request: openai.ChatRequest) -> Iterator[str]:
        yield "x"
        request.finish("length", prompt_tokens=2, completion_tokens=1)

    usage = {"prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3}
    [whole] = ask(chat(answer), HELLO)
    streamed = events(ask(chat(answer), HELLO | {"stream": True, "stream_options": {"include_usage": True}}))
    quiet = events(ask(chat(answer), HELLO | {"stream": True}))

    assert (whole["usage"], whole["choices"][0]["finish_reason"]) == (usage, "length")
    assert (streamed[-1]["choices"], streamed[-1]["usage"]) == ([], usage)
    assert quiet[-1]["choices"][0]["finish_reason"] == "length"


def test_dicts_are_deltas() -> None:
    call = {"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}

    def answer(request: openai.ChatRequest) -> Iterator[Any]:
        yield call
        request.finish("tool_calls")

    [whole] = ask(chat(answer), HELLO)
    streamed = events(ask(chat(answer), HELLO | {"stream": True}))

    assert whole["choices"][0]["message"] == {"role": "assistant", "content": None} | call
    assert streamed[1]["choices"][0]["delta"] == call


@pytest.mark.parametrize(
    ("body", "route", "status", "words"),
    [
        (
            HELLO | {"model": "huge"},
            "/v1/chat/completions",
            404,
            "'huge' does not exist here; expected one of tiny, small",
        ),
        ({"messages": []}, "/v1/chat/completions", 400, "messages: expected a list of at least one message"),
        ({"messages": "hi"}, "/v1/chat/completions", 400, "messages: expected"),
        ([1], "/v1/chat/completions", 400, "body: expected a JSON object with messages, got list"),
        (None, "/v1/chat/completions", 400, "body: expected"),
        (HELLO | {"n": 2}, "/v1/chat/completions", 400, "n: expected 1, got 2"),
        ({"input": "x"}, "/v1/embeddings", 404, "/v1/chat/completions and /v1/models, not /v1/embeddings"),
    ],
)
@pytest.mark.parametrize("answer", [generator, async_generator])
def test_what_cannot_be_answered_is_an_error(answer: Any, body: Any, route: str, status: int, words: str) -> None:
    [only] = ask(chat(answer), body, route=route)

    assert set(only) == {"error"}
    assert only["error"]["status"] == status
    assert words in only["error"]["message"]


def test_an_error_of_the_handler_keeps_its_fields() -> None:
    def answer(request: openai.ChatRequest) -> str:
        raise openai.Error("too long", status=422, kind="length_error", code="too_long", param="messages")

    [only] = ask(chat(answer), HELLO)

    fields = {"message": "too long", "type": "length_error", "param": "messages", "code": "too_long", "status": 422}
    assert only == {"error": fields}


def test_other_exceptions_pass_to_the_worker() -> None:
    def answer(request: openai.ChatRequest) -> str:
        raise RuntimeError("broke")

    with pytest.raises(RuntimeError, match="broke"):
        ask(chat(answer), HELLO)


def test_a_value_that_is_no_text_is_refused() -> None:
    with pytest.raises(TypeError, match="str, or dict for a delta, got int"):
        ask(chat(lambda request: 5), HELLO)


def test_a_stopped_stream_lets_the_handler_clean_up() -> None:
    cleaned = []

    def answer(request: openai.ChatRequest) -> Iterator[str]:
        try:
            while True:
                yield "more"
        finally:
            cleaned.append(True)

    stream = chat(answer)(Job({"id": "j", "input": HELLO | {"stream": True}}))
    next(stream)
    next(stream)
    stream.close()

    assert cleaned == [True]


@pytest.mark.parametrize("models", [[], "tiny", [""]])
def test_models_must_be_named(models: Any) -> None:
    with pytest.raises(DeclarationError, match="models: expected a list of at least one name"):
        openai.chat(models=models)


def test_what_is_no_function_cannot_answer() -> None:
    with pytest.raises(DeclarationError, match="expected a function"):
        openai.chat(models=["m"])(5)  # type: ignore[type-var]


def test_it_is_exported_and_declares_like_any_handler() -> None:
    worker = Worker()
    worker.handler(concurrency=4)(chat(async_generator))

    assert runpod_worker.openai is openai
    assert worker.declaration().handler.concurrency == 4


class Options(msgspec.Struct):
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] = 16


def reads_options(request: openai.ChatRequest) -> str:
    return str(request.options(Options).max_tokens)


async def awaits_options(request: openai.ChatRequest) -> str:
    return str(request.options(Options).max_tokens)


@pytest.mark.parametrize("answer", [reads_options, awaits_options])
@pytest.mark.parametrize("stream", [True, False])
def test_options_of_the_wrong_type_are_the_callers_mistake(answer: Any, stream: bool) -> None:
    [refused] = ask(chat(answer), HELLO | {"max_tokens": 0, "stream": stream})
    [whole] = ask(chat(answer), HELLO | {"max_tokens": 5, "unknown": True})

    assert refused["error"]["status"] == 400
    assert refused["error"]["message"] == "body.max_tokens: expected int >= 1, got 0 (int)"
    assert whole["choices"][0]["message"]["content"] == "5"


def test_other_errors_of_a_handler_stay_exceptions() -> None:
    def answer(request: openai.ChatRequest) -> str:
        raise runpod_worker.JobError("mine")

    with pytest.raises(Exception, match="mine"):
        ask(chat(answer), HELLO)
