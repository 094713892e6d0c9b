"""What release 0.1 wrote is read: its jobs, keys and files by the service, its spool by the worker."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from runpod_worker.service.server import Server, open_stores
from runpod_worker.service.settings import ServiceSettings

Samples = Any

WRITTEN_BY = "http://127.0.0.1:18080"
TIMEOUT_S = 60.0


class Service:
    """Today's service on a data folder of release 0.1."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self._session = session

    async def get(self, path: str, **headers: str) -> tuple[int, Any]:
        async with self._session.get(f"{self.url}/v2/{path}", headers=headers) as reply:
            return reply.status, await reply.json() if "json" in reply.content_type else await reply.read()

    async def health(self, endpoint: str) -> dict[str, int]:
        _, view = await self.get(f"{endpoint}/health")
        return dict(view["jobs"])


@asynccontextmanager
async def serving(samples: Samples) -> AsyncIterator[Service]:
    settings = ServiceSettings(port=0, data=samples.data)
    server = Server(settings, open_stores(settings), now=samples.now)
    await server.start()
    try:
        async with aiohttp.ClientSession(headers=samples.authorization) as session:
            yield Service(server.url, session)
    finally:
        await server.close()


async def test_every_job_looks_as_it_did(samples: Samples) -> None:
    jobs = samples.views["jobs"]

    async with serving(samples) as service:

        async def views(job: dict[str, Any]) -> tuple[Any, Any]:
            _, status = await service.get(f"{job['endpoint']}/status/{job['id']}")
            _, stream = await service.get(f"{job['endpoint']}/stream/{job['id']}?wait=1000")
            return status, stream

        seen = await asyncio.gather(*map(views, jobs.values()))

    assert dict(zip(jobs, seen, strict=True)) == {name: (job["status"], job["stream"]) for name, job in jobs.items()}


async def test_every_endpoint_counts_what_it_did(samples: Samples) -> None:
    async with serving(samples) as service:
        seen = {endpoint: (await service.get(f"{endpoint}/health"))[1] for endpoint in samples.views["health"]}

    assert seen == samples.views["health"]


async def test_the_key_opens_the_endpoints_of_its_account_and_no_other(samples: Samples) -> None:
    async with serving(samples) as service:
        ours, _ = await service.get("unused/health")
        others, _ = await service.get("others/health")
        unknown, _ = await service.get("unused/health", Authorization="Bearer rpw_unknown")

    assert (ours, others, unknown) == (200, 401, 401)


async def test_an_output_file_is_served(samples: Samples) -> None:
    url = samples.views["jobs"]["completed_with_file"]["status"]["output"]["url"]

    async with serving(samples) as service:
        status, content = await service.get(url.removeprefix(f"{WRITTEN_BY}/v2/"))

    assert (status, content) == (200, b"\x89PNG not really")


async def test_a_worker_delivers_what_is_in_the_spool(samples: Samples, tmp_path: Path) -> None:
    handler = tmp_path / "handler.py"
    handler.write_text("from runpod_worker import Worker\nworker = Worker()\nworker.handler(str)\nworker.start()\n")
    jobs = {kind: samples.views["jobs"][f"spooled_{kind}"] for kind in ("result", "stream", "file")}

    async with serving(samples) as service:
        url = f"{service.url}/v2/spooled"
        readdress(samples.spool, url)
        env = {"RUNPOD_WORKER_SPOOL": str(samples.spool), "RUNPOD_AI_API_KEY": samples.views["key"]}
        command = [sys.executable, "-m", "runpod_worker", "run", str(handler), "--url", url]
        worker = await asyncio.create_subprocess_exec(*command, env=os.environ | env)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                while (await service.health("spooled"))["inProgress"]:
                    await asyncio.sleep(0.05)
        finally:
            worker.terminate()
            await worker.wait()
        views = {kind: (await service.get(f"spooled/status/{job['id']}"))[1] for kind, job in jobs.items()}
        _, chunks = await service.get(f"spooled/stream/{jobs['stream']['id']}")
        saved = views["file"]["output"]["url"].removeprefix(f"{WRITTEN_BY}/v2/")
        stored = await service.get(saved)

    assert {view["status"] for view in views.values()} == {"COMPLETED"}
    assert views["result"]["output"] == {"answer": 42}
    assert chunks == {"status": "COMPLETED", "stream": [{"output": "first"}, {"output": "second"}]}
    assert stored == (200, b"the bytes of a saved file")
    assert not list(samples.spool.rglob("*.outcome"))


def readdress(spool: Path, url: str) -> None:
    """Let the entries name the service at `url`, and put them where its workers look."""
    [folder] = spool.iterdir()
    for path in folder.glob("*/*.outcome"):
        head, newline, body = path.read_bytes().partition(b"\n")
        path.write_bytes(head.replace(f"{WRITTEN_BY}/v2/spooled".encode(), url.encode()) + newline + body)
    folder.rename(spool / hashlib.sha256(url.encode()).hexdigest()[:16])
