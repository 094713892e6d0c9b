"""Saved files, and how much of what a job sends may be in flight."""

import io
import json

import pytest
from PIL import Image

from runpod_worker.core.dispatch.messages import Chunks, Done, File, FileFailed, Stop, WindowUpdate
from runpod_worker.worker.executor.window import window_size


def test_saved_files_are_counted_and_sent_as_they_were_when_saved(start):
    executor = start("""
        from PIL import Image
        @worker.handler
        def handler(job):
            picture = Image.new("RGB", (64, 64), "red")
            url = job.save(picture, "a b.png")
            picture.paste("blue", (0, 0, 64, 64))
            data = bytearray(b"abc")
            job.save(data, "data.bin")
            data[:] = b"xyz"
            job.save(Image.new("RGBA", (4, 4)), "broken.jpg")
            return url
    """)
    executor.ready()
    executor.run(files_url="http://service/files")
    done = None
    files = []
    while done is None or len(files) < done.files:
        message = executor.next()
        done = message if isinstance(message, Done) else done
        if isinstance(message, File | FileFailed):
            files.append(message)

    picture, data, broken = files
    assert isinstance(picture, File)
    assert isinstance(data, File)
    assert isinstance(broken, FileFailed)
    assert json.loads(done.output) == f"http://service/files/job-a/{picture.token}/a%20b.png"
    assert len(picture.token) >= 22
    assert picture.content_type == "image/png"
    assert picture.body.startswith(b"\x89PNG")
    with Image.open(io.BytesIO(picture.body)) as image:
        assert image.getpixel((1, 1)) == (255, 0, 0)
    assert data.body == b"abc"
    assert "broken.jpg could not be encoded" in broken.error


STREAMS = {
    "threads": """
        yielded = []
        @worker.handler(concurrency=2)
        def handler(job):
            if job["input"]:
                yield "free"
                return
            for n in range(1000):
                yielded.append(n)
                yield "x" * 1_000_000
    """,
    "loop": """
        yielded = []
        @worker.handler(concurrency=2)
        async def handler(job):
            if job["input"]:
                yield "free"
                return
            for n in range(1000):
                yielded.append(n)
                yield "x" * 1_000_000
    """,
}


@pytest.mark.parametrize("kind", STREAMS)
def test_a_stream_waits_for_its_own_window_only_and_a_stop_ends_the_wait(start, kind):
    executor = start(STREAMS[kind])
    executor.ready()
    executor.run("slow")
    size = 0
    while size <= window_size(2):
        size += sum(map(len, executor.until(Chunks, "slow").outputs))

    executor.run("quick", 1)
    assert executor.until(Done, "quick").error is None
    slow = [message for message in executor.seen if isinstance(message, Chunks) and message.key == "slow"]
    assert size == sum(len(output) for message in slow for output in message.outputs)

    executor.send(WindowUpdate("slow", size))
    more = 0
    while more <= window_size(2):
        more += sum(map(len, executor.until(Chunks, "slow").outputs))
    executor.send(Stop("slow", "cancelled"))

    assert executor.until(Done, "slow").stopped
    assert len(executor.names["yielded"]) <= (size + more) // 1_000_000 + 1


def test_files_wait_for_the_window_of_their_own_job_only(start):
    executor = start("""
        @worker.handler(concurrency=2)
        async def handler(job):
            for n in range(job["input"]):
                job.save(bytes(3_000_000), f"{n}.bin")
    """)
    executor.ready()
    executor.run("large", 5, files_url="http://s/files")
    executor.until(Done, "large")
    executor.run("small", 1, files_url="http://s/files")

    executor.until(File, "small")

    assert len([message for message in executor.seen if isinstance(message, File) and message.key == "large"]) == 3
    executor.send(WindowUpdate("large", 6_000_000))
    for _ in range(2):
        executor.until(File, "large")


def test_without_a_file_store_a_saved_file_is_a_data_url(start):
    executor = start("@worker.handler\ndef handler(job): return job.save(b'hi', 'hello.txt')")
    executor.ready()

    assert executor.output() == "data:text/plain;base64,aGk="
