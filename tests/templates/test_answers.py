"""Each template, served by a real worker from a real job service, on its own test input: is the answer right?"""

import base64
import io
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from runpod_worker import JobCancelled, JobFailed

Serve = Callable[[str], Any]

of = pytest.mark.xdist_group
"""Tests of one template share its worker."""

SPOKEN = "A worker takes the job, runs the handler, and sends the answer back before you finish your coffee."


def test_hello_greets(served: Serve) -> None:
    assert served("hello").answer() == {"greeting": "Hello, World!"}


def test_stream_sends_one_piece_per_word_and_keeps_them(served: Serve) -> None:
    words = ["one", "piece", "after", "the", "other"]
    pieces = [{"word": word, "of": 5, "number": number} for number, word in enumerate(words, start=1)]

    assert served("stream").stream() == pieces
    assert served("stream").answer() == pieces


@of("async-batch")
def test_async_batch_answers_in_the_order_of_the_items(served: Serve) -> None:
    assert served("async-batch").answer() == {"results": ["EVERY", "ITEM", "AT", "THE", "SAME", "TIME"]}


@of("async-batch")
@pytest.mark.slow
def test_async_batch_works_on_several_jobs_at_once(served: Serve) -> None:
    endpoint = served("async-batch").endpoint
    served("async-batch").answer()
    begun = time.monotonic()

    jobs = [endpoint.run({"input": {"items": [f"job {number}"]}}) for number in range(40)]
    outputs = [job.output(timeout=60) for job in jobs]

    one_after_the_other = 40 * 0.2
    assert time.monotonic() - begun < 0.75 * one_after_the_other
    assert outputs == [{"results": [f"JOB {number}"]} for number in range(40)]


@of("text-generation")
@pytest.mark.slow
def test_text_generation_knows_the_capital_of_france_and_streams_it(served: Serve) -> None:
    *pieces, last = served("text-generation").stream(stream=True)

    deltas = [json.loads(piece.removeprefix("data: "))["choices"][0]["delta"] for piece in pieces]
    assert "".join(delta.get("content", "") for delta in deltas).strip() == "The capital of France is Paris."
    assert len(deltas) > 3
    assert last == "data: [DONE]\n\n"


@of("text-generation")
@pytest.mark.slow
def test_text_generation_answers_openai_clients_and_refuses_their_mistakes(served: Serve) -> None:
    chat = served("text-generation")

    assert openai_reply(chat, {}) == (200, "The capital of France is Paris.")
    assert openai_reply(chat, {"max_tokens": 0}) == (400, "body.max_tokens: expected int >= 1, got 0 (int)")
    assert openai_reply(chat, {"max_tokens": 0, "stream": True})[0] == 400


def openai_reply(chat: Any, changed: dict[str, Any]) -> tuple[int, str]:
    """The status of a chat completion, and its text or the message of its error."""
    request = urllib.request.Request(
        f"{chat.endpoint.rp_client.endpoint_url_base}/text-generation/openai/v1/chat/completions",
        data=json.dumps(chat.test_input | changed).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=240) as reply:
            return reply.status, json.load(reply)["choices"][0]["message"]["content"].strip()
    except urllib.error.HTTPError as refused:
        return refused.code, json.load(refused)["error"]["message"]


def text_of(output: Any) -> str:
    return str(output[0]["choices"][0]["message"]["content"]).strip()


@of("text-generation")
@pytest.mark.slow
def test_text_generation_names_the_field_that_is_wrong(served: Serve) -> None:
    with pytest.raises(JobFailed, match="max_tokens"):
        served("text-generation").answer(max_tokens=0)


@of("text-generation")
@pytest.mark.slow
def test_text_generation_stops_when_the_job_is_cancelled_and_goes_on_with_the_next(served: Serve) -> None:
    chat = served("text-generation")
    messages = [{"role": "user", "content": "Write a long story about a dog and a cat."}]
    job = chat.endpoint.run({"input": {"messages": messages, "max_tokens": 4096, "stream": True}})
    next(job.stream())

    job.cancel()

    with pytest.raises(JobCancelled):
        job.output(timeout=60)
    assert text_of(chat.answer()) == "The capital of France is Paris."


@of("embeddings")
@pytest.mark.slow
def test_embeddings_put_the_two_cats_next_to_each_other(served: Serve) -> None:
    output = served("embeddings").answer()

    vectors = np.array(output["embeddings"])
    kitten, shares, cat, engine = vectors
    assert vectors.shape == (4, output["dimensions"]) == (4, 384)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-3)
    assert kitten @ cat > 0.5 > 0.2 > max(kitten @ shares, kitten @ engine)


@of("embeddings")
@pytest.mark.slow
def test_embeddings_of_many_texts_are_those_of_each_alone(served: Serve) -> None:
    texts = [f"{number} bottles of beer " * (1 + number % 7) for number in range(70)]

    together = np.array(served("embeddings").answer(texts=texts)["embeddings"])
    alone = np.array([served("embeddings").answer(texts=[texts[number]])["embeddings"][0] for number in (0, 34, 69)])

    assert np.abs(together[[0, 34, 69]] - alone).max() < 1e-4


@of("speech-to-text")
@pytest.mark.slow
def test_speech_to_text_hears_every_word(served: Serve) -> None:
    output = served("speech-to-text").answer()

    assert output["text"] == SPOKEN
    assert output["language"] == "en"
    assert 0 <= output["segments"][0]["start"] < output["segments"][-1]["end"] < 6


@of("speech-to-text")
@pytest.mark.slow
def test_speech_to_text_says_what_it_cannot_hear(served: Serve) -> None:
    with pytest.raises(JobFailed, match="audio: expected a URL, a data URL or base64"):
        served("speech-to-text").answer(audio="la la la!")


@of("image-to-image")
@pytest.mark.slow
def test_image_to_image_paints_the_cat_and_keeps_its_size(served: Serve) -> None:
    cat = picture(base64.b64decode(served("image-to-image").test_input["image"]))

    output = served("image-to-image").answer()

    painted = fetched(output["image"])
    assert painted.shape == cat.shape == (output["height"], output["width"], 3)
    assert np.abs(painted - cat).mean() > 20, "it looks different"
    assert np.corrcoef(painted.mean(2).ravel(), cat.mean(2).ravel())[0, 1] > 0.7, "it is still the cat"


@of("image-to-image")
@pytest.mark.slow
def test_image_to_image_goes_as_far_as_it_is_asked_to_and_knows_several_styles(served: Serve) -> None:
    cat = picture(base64.b64decode(served("image-to-image").test_input["image"]))
    little, much, other = (
        fetched(served("image-to-image").answer(**options)["image"])
        for options in ({"strength": 0.2}, {"strength": 1}, {"strength": 1, "style": 7})
    )

    assert 0 < np.abs(little - cat).mean() < np.abs(much - cat).mean() / 3
    assert np.abs(much - other).mean() > 20


@of("image-to-image")
@pytest.mark.slow
def test_image_to_image_takes_a_data_url_and_refuses_what_is_no_picture(served: Serve) -> None:
    painter = served("image-to-image")
    as_url = "data:image/jpeg;base64," + painter.test_input["image"]

    assert painter.answer(image=as_url)["width"] == 384
    with pytest.raises(JobFailed, match="image: expected a picture"):
        painter.answer(image=base64.b64encode(b"meow").decode())


def fetched(url: str) -> np.ndarray:
    with urllib.request.urlopen(url, timeout=30) as reply:
        return picture(reply.read())


def picture(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=float)
