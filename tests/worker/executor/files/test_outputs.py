import base64
import io
import json
import mmap
import os
import threading

import pytest
from PIL import Image

from runpod_worker.config import download_settings
from runpod_worker.core.dispatch.messages import File, FileFailed, Run
from runpod_worker.core.errors import OutputError
from runpod_worker.worker.executor.attempt import Attempt
from runpod_worker.worker.executor.files import outputs
from runpod_worker.worker.executor.files.inputs import Downloads
from runpod_worker.worker.executor.files.outputs import MAX_PENDING, SavedFiles
from runpod_worker.worker.executor.window import FlowWindow


class Sent:
    def __init__(self):
        self.messages = []
        self.may = threading.Event()
        self.may.set()

    def __call__(self, message):
        assert self.may.wait(30)
        self.messages.append(message)

    def put(self, item): ...


@pytest.fixture
def sent():
    return Sent()


@pytest.fixture
def files(sent):
    files = SavedFiles(sent)
    yield files
    sent.may.set()
    files.close()


def job(sent, files, store="http://s/v2/e/files"):
    run, received = Run("k", b"", 0.0, files_url=store), {"id": "job/1", "input": 1}
    return Attempt(run, received, sent.put, files.save, FlowWindow(), Downloads(download_settings()))


def test_bytes_paths_pictures_and_anything_with_save_can_be_saved(sent, files, tmp_path):
    (tmp_path / "a.txt").write_bytes(b"from disk")

    class Plot:
        def save(self, file, **options):
            file.write(options["format"].encode())

    attempt = job(sent, files)
    urls = [
        attempt.save(b"raw", "a.bin"),
        attempt.save(str(tmp_path / "a.txt"), "b.txt"),
        attempt.save(tmp_path / "a.txt", "c.txt"),
        attempt.save(Plot(), "d.svg"),
        attempt.save(Image.new("RGB", (2, 2)), "e.jpg"),
    ]
    (tmp_path / "a.txt").unlink()
    files.close()

    assert [message.body for message in sent.messages[:4]] == [b"raw", b"from disk", b"from disk", b"SVG"]
    assert sent.messages[4].body.startswith(b"\xff\xd8")
    assert [message.content_type for message in sent.messages[1:]] == [
        "text/plain",
        "text/plain",
        "image/svg+xml",
        "image/jpeg",
    ]
    assert len({message.token for message in sent.messages}) == 5
    for url, message in zip(urls, sent.messages, strict=True):
        assert url == f"http://s/v2/e/files/job%2F1/{message.token}/{message.name}"
    assert attempt.saved_files == 5


def test_the_handler_does_not_wait_for_encoding_until_too_much_waits(sent, files):
    sent.may.clear()
    attempt = job(sent, files)

    for number in range(MAX_PENDING):
        attempt.save(b"x", f"{number}.bin")
    late = threading.Thread(target=lambda: attempt.save(b"x", "late.bin"))
    late.start()
    assert sent.messages == []
    sent.may.set()
    late.join(30)
    files.close()

    assert len(sent.messages) == MAX_PENDING + 1


def test_a_picture_that_cannot_be_encoded_is_reported_by_its_name(sent, files):
    job(sent, files).save(Image.new("RGBA", (2, 2)), "a.jpg")
    files.close()

    assert isinstance(sent.messages[0], FileFailed)
    assert "a.jpg could not be encoded: OSError" in sent.messages[0].error


@pytest.mark.parametrize("name", ["", "a/b.png", "..", ".", "a\\b", "a\0b", "x" * 256, "a\n", "\ud800", 5])
def test_a_name_that_is_not_plain_is_refused(sent, files, name):
    with pytest.raises(OutputError, match="expected a plain file name"):
        job(sent, files).save(b"x", name)


def test_what_cannot_be_saved_is_refused(sent, files):
    with pytest.raises(OutputError, match="expected bytes, a path, a picture"):
        job(sent, files).save({"a": 1}, "a.json")
    with pytest.raises(OutputError, match="needs a suffix"):
        job(sent, files, store=None).save(Image.new("RGB", (1, 1)), "picture")


def test_without_a_store_the_url_holds_the_file(sent, files):
    url = job(sent, files, store=None).save(Image.new("RGB", (2, 2), "red"), "a.png")

    kind, _, data = url.partition(",")
    assert kind == "data:image/png;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).getpixel((0, 0)) == (255, 0, 0)
    assert sent.messages == []


def test_a_run_without_a_service_keeps_the_file_itself(sent):
    kept = {}

    def keep(name, content):
        kept[name] = content
        return f"there/{name}"

    path = job(sent, SavedFiles(sent, keep)).save(b"x", "a.bin")

    assert (path, kept) == ("there/a.bin", {"a.bin": b"x"})
    assert isinstance(json.dumps(path), str)
    assert not any(isinstance(message, File) for message in sent.messages)


def test_a_large_file_travels_in_parts(sent, files):
    content = os.urandom(2 * outputs.PART_BYTES + 5)
    attempt = job(sent, files)

    attempt.save(content, "large.bin")
    files.close()

    *parts, file = sent.messages
    assert [len(part.body) for part in parts] == [outputs.PART_BYTES] * 2
    assert {message.token for message in sent.messages} == {file.token}
    assert b"".join(message.body for message in sent.messages) == content


def test_a_file_over_the_limit_of_the_service_is_refused_before_it_is_read(sent, files, tmp_path):
    large = tmp_path / "large.bin"
    with large.open("wb") as file:
        file.truncate(11)
    attempt = job(sent, files)
    attempt.max_file_bytes = 10
    expected = r"large.bin has 11 bytes; .* at most 10 \(its setting RUNPOD_SERVICE_MAX_FILE_BYTES\)"

    with pytest.raises(OutputError, match=expected):
        attempt.save(large, "large.bin")
    with large.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        view = memoryview(content)
        with pytest.raises(OutputError, match=expected):
            attempt.save(view, "large.bin")
        view.release()
    assert (sent.messages, attempt.saved_files) == ([], 0)


def test_a_picture_over_the_limit_of_the_service_fails_its_job(sent, files):
    attempt = job(sent, files)
    attempt.max_file_bytes = 10

    attempt.save(Image.new("RGB", (50, 50)), "a.png")
    files.close()

    assert isinstance(sent.messages[0], FileFailed)
    assert "at most 10 (its setting" in sent.messages[0].error
