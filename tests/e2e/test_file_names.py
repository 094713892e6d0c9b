"""Files that a handler saves under unusual names, through the real service."""

import urllib.request
from typing import Any

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
