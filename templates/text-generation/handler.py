"""Answers OpenAI's chat completions with a language model, and streams the answer while the model writes it."""

import os
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Annotated, Literal

import demo_model
import msgspec
from msgspec import Meta
from transformers import AutoModelForCausalLM, AutoTokenizer, TextIteratorStreamer

from runpod_worker import Worker, openai

MODEL = os.environ.get("MODEL")  # hub id or folder; default: the small demo model

worker = Worker()


class Message(msgspec.Struct):
    role: Literal["system", "user", "assistant"]
    content: str


class Options(msgspec.Struct):
    messages: Annotated[list[Message], Meta(min_length=1)]
    max_tokens: Annotated[int, Meta(ge=1, le=4096)] | None = None
    max_completion_tokens: Annotated[int, Meta(ge=1, le=4096)] | None = None  # the newer name
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None  # 0: always the most likely token
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None


@worker.model
def load(device):
    model = MODEL or demo_model.folder()
    return AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model, dtype="auto").to(device)


@worker.warmup
def warmup():
    """The input of a run before the first job, so that the first job is as fast as the next."""
    return {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}


@worker.handler(aggregate=True)
@openai.chat(models=[MODEL or demo_model.HUB_ID])
def handler(request, loaded):
    tokenizer, model = loaded
    options = request.options(Options)
    prompt = tokenizer.apply_chat_template(
        msgspec.to_builtins(options.messages), add_generation_prompt=True, return_tensors="pt", return_dict=True
    ).to(model.device)
    sampling = {"temperature": options.temperature, "top_p": options.top_p or 1.0} if options.temperature else {}
    limit = options.max_completion_tokens or options.max_tokens or 256
    yield from stream(tokenizer, model, **prompt, max_new_tokens=limit, do_sample=bool(sampling), **sampling)


def stream(tokenizer, model, **options):
    """Yield the text as it is generated. Closing this generator also stops the model."""
    pieces = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    stop = Event()

    def generate():
        try:
            model.generate(**options, streamer=pieces, stopping_criteria=[lambda *_: stop.is_set()])
        finally:
            pieces.end()  # also after an error, so that the loop below ends

    with ThreadPoolExecutor(max_workers=1) as pool:
        generation = pool.submit(generate)
        try:
            yield from (piece for piece in pieces if piece)
        finally:
            stop.set()
        generation.result()  # raises the error of the thread


if __name__ == "__main__":
    worker.start()
