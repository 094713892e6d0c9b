"""Makes the samples beside this file. Run it with the code of release 0.1 (README.md says how).

Real requests go to a real service of 0.1 whose clock this script moves; a real worker of 0.1 writes the spool.
"""

import asyncio
import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
from runpod_worker.service.server import Server, open_stores
from runpod_worker.service.settings import ServiceSettings
from runpod_worker.service.stores.key_file import KeyFile
from runpod_worker.service.webhooks import WebhookSettings

HERE = Path(__file__).parent
PORT = 18080
KEY = "rpw_sample-key-of-release-0.1"
CONFIRMS = {"X-Worker-Extensions": "attempt chunks files return stop take timings"}
RETURNS = """
import os, time
from pathlib import Path
from runpod_worker import Worker

worker = Worker()

@worker.handler(concurrency=2)
def handler(job):
    while not Path(os.environ["RELEASE"]).exists():
        time.sleep(0.01)
    if job["input"]["kind"] == "file":
        return {"url": job.save(b"the bytes of a saved file", "saved.bin")}
    return {"answer": 42}

worker.start()
"""
STREAMS = """
import os, time
from pathlib import Path
from runpod_worker import Worker

worker = Worker()

@worker.handler
def handler(job):
    yield "first"
    yield "second"
    while not Path(os.environ["RELEASE"]).exists():
        time.sleep(0.01)

worker.start()
"""


class Clock:
    """The service's time, moved by hand."""

    def __init__(self) -> None:
        self.now = 1_750_000_000.0

    def __call__(self) -> float:
        return self.now


class Site:
    """A service of 0.1 on the folder `data`, and what its callers and workers ask of it."""

    def __init__(self, data: Path, clock: Clock) -> None:
        settings = ServiceSettings(port=PORT, data=data, cancel_hold_s=0.0, webhooks=WebhookSettings(timeout_s=2.0))
        self.data = data
        self.clock = clock
        self.server = Server(settings, open_stores(settings), now=clock, random=lambda: 0.5)
        self.jobs: dict[str, tuple[str, str]] = {}

    async def __aenter__(self) -> "Site":
        await self.server.start()
        self._session = aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"})
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()
        await self.server.close()

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body)
        url = f"{self.server.url}/v2/{path}"
        async with self._session.request(method, url, data=data, headers=headers) as reply:
            content = await reply.read()
            assert reply.status < 300, (path, reply.status, content)
            return json.loads(content) if content else None

    async def submit(self, endpoint: str, name: str, **more: Any) -> str:
        body = {"input": {"name": name, "text": "grüße"}} | more
        job_id = str((await self.ask("POST", f"{endpoint}/run", body))["id"])
        self.jobs[name] = (endpoint, job_id)
        return job_id

    async def take(self, endpoint: str, worker: str = "worker-1", **headers: str) -> dict[str, Any]:
        return await self.ask("GET", f"{endpoint}/job-take/{worker}?gpu=NVIDIA+A40", **headers)

    async def taken(self, endpoint: str, name: str, *, confirms: bool = False, **more: Any) -> str:
        """A job that a worker holds."""
        job_id = await self.submit(endpoint, name, **more)
        job = await self.take(endpoint, **(CONFIRMS if confirms else {}))
        assert job["id"] == job_id
        self.clock.now += 0.125
        return job_id

    async def done(self, name: str, body: Any, *, stream: bool = False, worker: str = "worker-1") -> None:
        endpoint, job_id = self.jobs[name]
        end = "true" if stream else "false"
        await self.ask("POST", f"{endpoint}/job-done/{worker}/{job_id}?gpu=NVIDIA+A40&isStream={end}", body)

    async def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds
        await self.server.service.sweep.once()


async def jobs_that_ended(site: Site) -> None:
    ep = "ended"
    await site.taken(ep, "failed_by_lost_worker")
    await site.pass_time(41)
    await site.take(ep, "worker-2")
    await site.pass_time(41)
    await site.taken(ep, "failed_by_execution_timeout", policy={"executionTimeout": 5000})
    await site.pass_time(6)
    await site.submit(ep, "timed_out_in_queue", policy={"ttl": 10_000})
    await site.pass_time(11)
    await site.taken(ep, "timed_out_running", policy={"ttl": 10_000})
    await site.pass_time(11)
    await site.taken(ep, "failed_by_handler")
    await site.done("failed_by_handler", {"error": "ValueError: a text with “quotes”"})
    await site.submit(ep, "cancelled_in_queue")
    await site.ask("POST", f"{ep}/cancel/{site.jobs['cancelled_in_queue'][1]}")
    job_id = await site.taken(ep, "cancelled_running")
    await site.ask("POST", f"{ep}/cancel/{job_id}")
    await site.taken(ep, "completed")
    await site.done("completed", {"output": {"text": "hello", "numbers": [1, 2.5, None]}})
    await site.taken(ep, "completed_with_timings")
    await site.done("completed_with_timings", {"output": 1, "timings": {"started": 1.5}})
    await stream_that_ended(site, ep)
    await file_that_was_saved(site, ep)
    job_id = await site.taken(ep, "completed_by_retry")
    await site.done("completed_by_retry", {"error": "the first run failed"})
    await site.ask("POST", f"{ep}/retry/{job_id}")
    await site.take(ep)
    await site.done("completed_by_retry", {"output": "the second run"})
    await webhooks(site, ep)
    await sync_job(site, ep)


async def stream_that_ended(site: Site, endpoint: str) -> None:
    job_id = await site.taken(endpoint, "completed_stream")
    path = f"{endpoint}/job-stream/worker-1/{job_id}?gpu=NVIDIA+A40"
    await site.ask("POST", path, {"output": "one chunk"})
    await site.ask("POST", path, {"outputs": [{"n": 1}, [2], "three"], "index": 1}, **CONFIRMS)
    await site.done("completed_stream", {"output": []}, stream=True)


async def file_that_was_saved(site: Site, endpoint: str) -> None:
    job_id = await site.taken(endpoint, "completed_with_file")
    path = f"{endpoint}/files/{job_id}/token-0123456789abcdef/picture.png"
    await site.ask("PUT", path, b"\x89PNG not really", **{"Content-Type": "image/png"})
    await site.done("completed_with_file", {"output": {"url": f"{site.server.url}/v2/{path}"}})


async def webhooks(site: Site, endpoint: str) -> None:
    """One that was tried once, and one that was never tried. No name under .example has an address."""
    await site.taken(endpoint, "webhook_tried_once", webhook="https://tried.example/hook")
    await site.done("webhook_tried_once", {"output": "webhook"})
    await until(lambda: rows(site.data, "SELECT 1 FROM deliveries WHERE tries = 1"))
    [sending] = [task for task in site.server._tasks if task.get_name() == "service-webhooks"]
    sending.cancel()
    await asyncio.wait([sending])
    await site.taken(endpoint, "webhook_untried", webhook="https://untried.example/hook")
    await site.done("webhook_untried", {"error": "webhook"})


async def sync_job(site: Site, endpoint: str) -> None:
    caller = asyncio.create_task(site.ask("POST", f"{endpoint}/runsync", {"input": {"name": "sync"}}))
    job = await site.take(endpoint)
    site.jobs["completed_sync"] = (endpoint, job["id"])
    site.clock.now += 0.25
    await site.done("completed_sync", {"output": "sync"})
    assert (await caller)["status"] == "COMPLETED"


async def jobs_in_queue(site: Site) -> None:
    ep = "waiting"
    await site.taken(ep, "queued_again_by_lost_worker")
    await site.pass_time(41)
    await site.take(ep, "worker-2")
    job_id = await site.submit(ep, "released_by_worker")
    assert (await site.take(ep, **CONFIRMS))["id"] == job_id
    body = {"takes": [], "jobs": [{"id": job_id, "attempt": 1}]}
    await site.ask("POST", f"{ep}/job-return/worker-1", body, **CONFIRMS)
    lost = site.jobs["queued_again_by_lost_worker"][1]
    body = {"takes": [], "jobs": [{"id": lost, "attempt": 2}]}
    await site.ask("POST", f"{ep}/job-return/worker-2", body)
    await site.submit(ep, "queued")
    await site.submit(ep, "queued_low_priority", policy={"lowPriority": True, "ttl": 7_200_000})
    job_id = await site.submit("retried", "queued_by_retry", webhook="https://later.example/hook")
    assert (await site.take("retried"))["id"] == job_id
    await site.done("queued_by_retry", {"error": "the first run failed"})
    await site.ask("POST", f"retried/retry/{job_id}")


async def jobs_in_progress(site: Site) -> None:
    ep = "running"
    await site.taken(ep, "running_second_attempt")
    await site.pass_time(41)
    await site.take(ep, "worker-2", **CONFIRMS)
    job_id = await site.taken(ep, "running_with_chunks", confirms=True)
    path = f"{ep}/job-stream/worker-1/{job_id}?gpu=NVIDIA+A40"
    await site.ask("POST", path, {"outputs": ["a", "b"], "index": 0}, **CONFIRMS)
    await site.taken(ep, "running_with_progress")
    await site.done("running_with_progress", {"status": "IN_PROGRESS", "output": {"percent": 40}})
    job_id = await site.taken(ep, "running_being_cancelled", confirms=True)
    view = await site.ask("POST", f"{ep}/cancel/{job_id}")
    assert view["status"] == "IN_PROGRESS"


async def jobs_of_the_spool(site: Site, folder: Path) -> list[subprocess.Popen[bytes]]:
    """Three jobs, and the two workers that hold them until the file `release` is there."""
    await site.submit("spooled", "spooled_stream")
    workers = [start_worker(site, folder / "streams.py", STREAMS)]
    stream = f"SELECT 1 FROM chunks JOIN jobs USING (seq) WHERE id = '{site.jobs['spooled_stream'][1]}'"
    await until(lambda: len(rows(site.data, stream)) == 2)
    for kind in ("result", "file"):
        await site.submit("spooled", f"spooled_{kind}", input={"kind": kind})
    workers.append(start_worker(site, folder / "returns.py", RETURNS))
    await until(lambda: site.server.service.health("spooled")["jobs"]["inProgress"] == 3)
    await asyncio.sleep(1)  # the handlers have their jobs
    return workers


def start_worker(site: Site, path: Path, handler: str) -> subprocess.Popen[bytes]:
    path.write_text(handler)
    env = {"RUNPOD_WORKER_SPOOL": str(HERE / "spool"), "RUNPOD_POD_ID": path.stem, "RUNPOD_AI_API_KEY": KEY}
    env |= {"RUNPOD_WORKER_AHEAD": "0", "RELEASE": str(path.parent / "release")}
    url = f"{site.server.url}/v2/spooled"
    command = [sys.executable, "-m", "runpod_worker", "run", str(path), "--url", url, "--grace", "3"]
    return subprocess.Popen(command, env=os.environ | env, start_new_session=True)


async def write_views(data: Path, clock: Clock, jobs: dict[str, tuple[str, str]]) -> None:
    """What a service that is started on a copy of the data says about each job."""
    views: dict[str, Any] = {"at": clock.now, "key": KEY, "jobs": {}, "health": {}, "deliveries": deliveries(data)}
    async with Site(data, clock) as site:
        for name, (endpoint, job_id) in jobs.items():
            views["jobs"][name] = {
                "endpoint": endpoint,
                "id": job_id,
                "status": await site.ask("GET", f"{endpoint}/status/{job_id}"),
                "stream": await site.ask("GET", f"{endpoint}/stream/{job_id}?wait=1000"),
            }
        for endpoint in sorted({endpoint for endpoint, _ in jobs.values()} | {"unused"}):
            views["health"][endpoint] = await site.ask("GET", f"{endpoint}/health")
        for delivery in views["deliveries"]:
            delivery["body"] = json.loads(await site.server.service.webhook_body(delivery["id"]) or b"null")
    (HERE / "views.json").write_text(json.dumps(views, indent=1, ensure_ascii=False) + "\n")


def deliveries(data: Path) -> list[dict[str, Any]]:
    """The webhooks that are still to be sent."""
    deliveries = rows(data, "SELECT id, tries, next_at FROM deliveries JOIN jobs USING (seq) ORDER BY seq")
    return [dict(zip(("id", "tries", "next_at"), row, strict=True)) for row in deliveries]


def rows(data: Path, query: str) -> list[Any]:
    connection = sqlite3.connect(data / "jobs.sqlite")
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.02)


def add_keys(data: Path) -> None:
    keys = KeyFile(data / "jobs.sqlite")
    account = keys.account("sample account")
    for endpoint in ("ended", "waiting", "retried", "running", "spooled", "unused"):
        keys.give_endpoint(account, endpoint)
    keys.add_key(account, hashlib.sha256(KEY.encode()).digest(), "sample key")
    keys.give_endpoint(keys.account("another account"), "others")
    keys.close()


async def main() -> None:
    data, clock = HERE / "service", Clock()
    for folder in (data, HERE / "spool"):
        shutil.rmtree(folder, ignore_errors=True)
    data.mkdir()
    add_keys(data)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with Site(data, clock) as site:
            await jobs_in_queue(site)
            await jobs_that_ended(site)
            await jobs_in_progress(site)
            workers = await jobs_of_the_spool(site, folder)
        (folder / "release").touch()
        await asyncio.sleep(1)  # the jobs end
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
        for worker in workers:
            assert worker.wait(60) == 0
        shutil.copytree(data, folder / "copy")
        await write_views(folder / "copy", clock, site.jobs)
    (data / "jobs.sqlite.lock").unlink()


if __name__ == "__main__":
    asyncio.run(main())
