"""Files that a handler saves, under unusual names and of unusual sizes, through the real service."""

import urllib.request
from typing import Any

import pytest

MIB = 2**20

NAMES = ["my picture.png", "photo (1).jpg", "bild_ä.png", "n" * 154, "100%.txt", "a&b=c;d.txt", "a", "a.gz", "#?.txt"]

HANDLER = f"""
    @worker.handler
    def handler(job):
        return [job.save(name.encode(), name) for name in {NAMES!r}]
"""


def test_every_name_comes_back_with_its_own_bytes(workers: Any) -> None:
    workers.worker(HANDLER)

    view = workers.ended(workers.run(1))

    assert view["status"] == "COMPLETED", view
    for name, url in zip(NAMES, view["output"], strict=True):
        request = urllib.request.Request(url, headers={"Accept-Encoding": "gzip"})
        with urllib.request.urlopen(request, timeout=60) as reply:
            assert reply.read() == name.encode()


def test_a_file_larger_than_a_message_between_the_processes_arrives(
    fleet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNPOD_SERVICE_MAX_FILE_BYTES", str(300 * MIB))
    fleet.serve()
    fleet.worker("""
        @worker.handler
        def handler(job):
            return job.save(bytes(job["input"]), "large.bin")
    """)

    large, too_large = (fleet.ended(fleet.run(size * MIB)) for size in (260, 301))

    assert large["status"] == "COMPLETED", large
    with urllib.request.urlopen(large["output"], timeout=60) as reply:
        assert sum(len(piece) for piece in iter(lambda: reply.read(MIB), b"")) == 260 * MIB
    assert f"at most {300 * MIB} (its setting RUNPOD_SERVICE_MAX_FILE_BYTES)" in too_large["error"]
