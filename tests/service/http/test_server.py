"""The service as something that runs: ready, drained, killed."""

from __future__ import annotations

import asyncio
import itertools
import signal
import socket
import sys

import aiohttp
import pytest

from runpod_worker.core.errors import SettingsError
from runpod_worker.service.server import Server, open_stores, run_service
from runpod_worker.service.settings import ServiceSettings, WebhookSettings

PROGRAM = """
import sys
from pathlib import Path
from runpod_worker.service.server import serve
from runpod_worker.service.settings import ServiceSettings
settings = ServiceSettings(port=0, data=Path(sys.argv[1]), lease_s=float(sys.argv[2]))
serve(settings, ready=lambda url: print(url, flush=True))
"""


class Process:
    """The service in a process of its own, and a session to it."""

    def __init__(self, data, lease_s=40.0) -> None:
        self.data = data
        self.lease_s = lease_s

    async def __aenter__(self):
        self.child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROGRAM, str(self.data), str(self.lease_s), stdout=asyncio.subprocess.PIPE
        )
        line = await asyncio.wait_for(self.child.stdout.readline(), 30)
        self.url = line.decode().strip()
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        return self

    async def __aexit__(self, *exc) -> None:
        await self.session.close()
        if self.child.returncode is None:
            self.child.kill()
        await self.child.wait()
        self.child._transport.close()  # type: ignore[attr-defined]

    async def send(self, method: str, path: str, **kwargs):
        async with self.session.request(method, f"{self.url}/v2/ep{path}", **kwargs) as reply:
            return reply.status, (await reply.json(content_type=None) if reply.content_length else None)


async def test_a_closing_service_answers_every_long_poll(serve, workers):
    running = await serve()
    api, plain = running.api, workers[0](running.api)
    job_id = await api.run()
    await plain.take()
    held = [
        asyncio.create_task(api.get("/job-take/idle?gpu=A")),
        asyncio.create_task(api.get("/job-stop/idle?gpu=A")),
        asyncio.create_task(api.post("/runsync", {"input": 1})),
        asyncio.create_task(api.get(f"/status-sync/{job_id}")),
        asyncio.create_task(api.get(f"/stream/{job_id}?wait=60000")),
    ]
    async with asyncio.timeout(20):
        while len(running.service.jobs.ended) < 2 or not len(running.service.jobs.moved):
            await asyncio.sleep(0)

    await asyncio.wait_for(running.server.close(), 5)
    take, stop, runsync, status, stream = await asyncio.gather(*held)

    assert (take.status, stop.status) == (200, 204), "the idle worker got the runsync job before the drain"
    assert runsync.json["status"] == "IN_PROGRESS"
    assert status.json["status"] == "IN_PROGRESS"
    assert stream.json == {"status": "IN_PROGRESS", "stream": []}


async def test_run_service_reports_its_url_and_ends_on_stop(tmp_path):
    stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
    settings = ServiceSettings(port=0, data=tmp_path / "data")

    running = asyncio.create_task(run_service(settings, ready=ready.set_result, stop=stop))
    url = await asyncio.wait_for(ready, 20)
    async with aiohttp.ClientSession() as session, session.get(url + "/v2/ep/health") as reply:
        assert reply.status == 200
    stop.set()

    await asyncio.wait_for(running, 20)


async def test_a_port_in_use_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = ServiceSettings(port=taken.getsockname()[1])
        server = Server(settings, open_stores(settings))

        with pytest.raises(SettingsError, match=r"port: cannot listen on http://127.0.0.1:\d+"):
            await server.start()
        await server.close()


def test_a_wrong_webhook_secret_is_named():
    settings = ServiceSettings(webhooks=WebhookSettings(secret="short"))

    with pytest.raises(SettingsError, match=r"webhooks\.secret"):
        Server(settings, open_stores(settings))


async def test_a_loop_that_fails_ends_the_service(tmp_path):
    settings = ServiceSettings(port=0)
    stores = open_stores(settings)

    def broken():
        raise RuntimeError("index is corrupt")

    server = Server(settings, stores)
    server.queue.jobs.index.all_leased = broken  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):
        await server.start()
    await server.close()


async def test_a_service_that_was_stopped_and_continued_takes_no_job_from_its_worker(tmp_path):
    async with Process(tmp_path, lease_s=1.0) as service:
        _, job = await service.send("POST", "/run", json={"input": 1})
        await service.send("GET", "/job-take/w?gpu=A")

        service.child.send_signal(signal.SIGSTOP)
        await asyncio.sleep(3)
        service.child.send_signal(signal.SIGCONT)
        for _ in range(8):
            await asyncio.sleep(0.25)
            await service.send("GET", f"/ping/w?gpu=A&job_id={job['id']}")

        _, view = await service.send("GET", f"/status/{job['id']}")
        assert (view["status"], view.get("retries", 0)) == ("IN_PROGRESS", 0)


async def test_sigterm_ends_the_process_at_once_and_answers_long_polls(tmp_path):
    async with Process(tmp_path) as service:
        waiting = asyncio.create_task(service.send("GET", "/job-take/w?gpu=A"))
        async with asyncio.timeout(20):
            while (await service.send("GET", "/health"))[1]["workers"]["idle"] != 1:
                pass
        started = asyncio.get_running_loop().time()

        service.child.send_signal(signal.SIGTERM)

        assert (await waiting)[0] == 204
        assert await asyncio.wait_for(service.child.wait(), 20) == 0
        assert asyncio.get_running_loop().time() - started < 5


@pytest.mark.slow
async def test_kill_9_in_the_middle_of_the_load_loses_nothing_and_runs_nothing_twice(tmp_path):
    accepted: set[str] = set()
    acknowledged: set[str] = set()

    async with Process(tmp_path) as service:
        calls = [asyncio.create_task(_submit_for_ever(service, accepted)) for _ in range(8)]
        work = [asyncio.create_task(_work_for_ever(service, f"w-{n}", acknowledged)) for n in range(4)]
        async with asyncio.timeout(30):
            while len(acknowledged) < 150:
                await asyncio.sleep(0)
        service.child.kill()
        await service.child.wait()
        for task in (*calls, *work):
            task.cancel()
        await asyncio.gather(*calls, *work, return_exceptions=True)

    async with Process(tmp_path) as service:
        for job_id in acknowledged:
            assert (await service.send("GET", f"/status/{job_id}"))[1]["status"] == "COMPLETED"
        again: set[str] = set()
        work = [asyncio.create_task(_finish(service, f"w-{n}", again)) for n in range(4)]
        async with asyncio.timeout(60):
            for job_id in accepted:
                view = (await service.send("GET", f"/status-sync/{job_id}"))[1]
                assert view["status"] == "COMPLETED", view
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)

    assert not again & acknowledged, "an acknowledged job is never assigned again"


async def _submit_for_ever(service: Process, accepted: set[str]) -> None:
    while True:
        status, body = await service.send("POST", "/run", json={"input": 1})
        assert status == 200
        accepted.add(body["id"])


async def _take(service: Process, name: str, take: str):
    headers = {"X-Worker-Extensions": "take return", "X-Take-Id": take}
    return await service.send("GET", f"/job-take/{name}?gpu=A", headers=headers)


async def _work_for_ever(service: Process, name: str, acknowledged: set[str]) -> None:
    for number in itertools.count():
        status, job = await _take(service, name, f"{name}-{number}")
        if status == 200:
            await service.send("POST", f"/job-done/{name}/{job['id']}?gpu=A", json={"output": 1})
            acknowledged.add(job["id"])


async def _finish(service: Process, name: str, taken: set[str]) -> None:
    """The same worker after the restart: it releases the jobs that it lost, and works on."""
    takes = [f"{name}-{number}" for number in range(5000)]
    assert (await service.send("POST", f"/job-return/{name}", json={"takes": takes}))[0] == 200
    for number in itertools.count(5000):
        status, job = await _take(service, name, f"{name}-{number}")
        if status == 200:
            taken.add(job["id"])
            await service.send("POST", f"/job-done/{name}/{job['id']}?gpu=A", json={"output": 1})
