"""The names and shapes of RunPod's SDK that old programs use."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from typing import Any

import aiohttp
import pytest

import runpod_worker as runpod
from runpod_worker.client.access import proxy_for
from runpod_worker.core import errors

DONE = {"id": "job-1", "status": "COMPLETED", "output": 3}


def test_job_is_made_from_a_client(service: Any, base_url: str) -> None:
    service.on("GET your_endpoint_id/status/your_job_id", DONE)
    client = runpod.endpoint.runner.RunPodClient()

    job = runpod.endpoint.Job(endpoint_id="your_endpoint_id", job_id="your_job_id", client=client)

    assert job.status() == "COMPLETED"
    client.close()


def test_client_gets_and_posts_below_the_base_url(service: Any, base_url: str) -> None:
    service.on("GET ep/health", {"jobs": {}})
    service.on("POST ep/run", {"id": "job-1"})
    client = runpod.endpoint.runner.RunPodClient(api_key="k")

    assert client.get("ep/health", timeout=3) == {"jobs": {}}
    assert client.post("ep/run", {"input": {}}, timeout=3) == {"id": "job-1"}
    assert service.seen[1].json == {"input": {}}
    assert client.endpoint_url_base == base_url
    client.close()


async def test_asyncio_endpoint_works_over_the_callers_session(service: Any, base_url: str) -> None:
    service.on("POST ep/run", {"id": "job-1", "status": "IN_QUEUE"})
    service.on("GET ep/status/job-1", DONE)
    service.on("GET ep/status-sync/job-1", DONE)

    async with runpod.http_client.AsyncClientSession() as session:
        job = await runpod.AsyncioEndpoint("ep", session).run({"a": 1})
        assert await job.output() == 3
        again = runpod.AsyncioJob("ep", "job-1", session, {"Authorization": "Bearer other"})
        assert await again.output(timeout=5) == 3

    assert service.seen[-1].headers["Authorization"] == "Bearer other"


async def test_asyncio_endpoint_leaves_the_callers_session_open(service: Any, base_url: str) -> None:
    service.on("GET ep/health", {})

    async with aiohttp.ClientSession() as session:
        async with runpod.AsyncioEndpoint("ep", session) as endpoint:
            await endpoint.health()
        assert not session.closed


async def test_a_session_that_raises_for_status_changes_no_error(service: Any, base_url: str) -> None:
    service.on("GET ep/health", service.answer(status=401, json={"detail": "invalid api key"}))

    async with aiohttp.ClientSession(raise_for_status=True) as session:
        with pytest.raises(errors.Unauthorized, match="invalid api key"):
            await runpod.AsyncioEndpoint("ep", session).health()


async def test_a_cancelled_wait_leaves_the_endpoint_usable(service: Any, base_url: str) -> None:
    never = threading.Event()
    service.on("GET ep/status-sync/job-1", service.answer(json=DONE, release=never))
    service.on("GET ep/health", {"jobs": {}})

    async with runpod.AsyncioEndpoint("ep") as endpoint:
        waiting = asyncio.create_task(endpoint.job("job-1").output(None))
        await asyncio.to_thread(service.await_requests, 1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await endpoint.health() == {"jobs": {}}
    never.set()


def test_modules_of_the_sdk_have_their_classes() -> None:
    from runpod_worker.endpoint.asyncio import asyncio_runner

    assert asyncio_runner.Job is runpod.AsyncioJob
    assert asyncio_runner.Endpoint is runpod.AsyncioEndpoint
    assert runpod.endpoint.Endpoint is runpod.Endpoint
    assert runpod.endpoint.AsyncioJob is runpod.AsyncioJob
    assert runpod.http_client.ClientSession is aiohttp.ClientSession


def test_key_and_base_url_come_from_the_environment_until_assigned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(vars(runpod), "api_key", raising=False)
    monkeypatch.delitem(vars(runpod), "endpoint_url_base", raising=False)
    assert runpod.api_key is None
    assert runpod.endpoint_url_base == "https://api.runpod.ai/v2"

    monkeypatch.setenv("RUNPOD_API_KEY", "from-environment")
    monkeypatch.setenv("RUNPOD_ENDPOINT_BASE_URL", "https://example.com/v2/")

    client = runpod.endpoint.runner.RunPodClient()
    assert client.headers["Authorization"] == "Bearer from-environment"
    assert client.endpoint_url_base == "https://example.com/v2"


def test_missing_key_is_named_where_the_endpoint_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vars(runpod), "api_key", None)
    monkeypatch.setitem(vars(runpod), "endpoint_url_base", "https://api.runpod.ai/v2")

    with pytest.raises(errors.SettingsError, match=r"no API key: set runpod_worker\.api_key"):
        runpod.Endpoint("ep")
    with pytest.raises(errors.SettingsError, match="no API key"):
        runpod.AsyncioEndpoint("ep")


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "[::1]:8000"])
def test_a_service_on_this_machine_needs_no_key(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setitem(vars(runpod), "api_key", None)
    monkeypatch.setitem(vars(runpod), "endpoint_url_base", f"http://{host}/v2")

    assert "Authorization" not in runpod.Endpoint("ep").rp_client.headers


@pytest.mark.parametrize("url", ["api.runpod.ai/v2", "ftp://host/v2", "", None, "http://"])
def test_a_malformed_base_url_is_named(monkeypatch: pytest.MonkeyPatch, url: Any) -> None:
    monkeypatch.setitem(vars(runpod), "endpoint_url_base", url)

    with pytest.raises(errors.SettingsError, match="endpoint_url_base: expected http"):
        runpod.Endpoint("ep", api_key="k")


@pytest.mark.parametrize("key", ["se cret", "sécret", "se\ncret", 7])
def test_a_malformed_key_is_refused_without_showing_it(base_url: str, key: Any) -> None:
    with pytest.raises(errors.SettingsError, match="api_key: expected") as caught:
        runpod.Endpoint("ep", api_key=key)

    assert "cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("base_url", "no_proxy", "expected"),
    [
        ("https://api.runpod.ai/v2", "", "http://proxy:3128"),
        ("https://api.runpod.ai/v2", "runpod.ai", None),
        ("http://127.0.0.1:8000/v2", "", None),
        ("http://api.runpod.ai/v2", "", None),
    ],
)
def test_the_systems_proxy_is_chosen(
    monkeypatch: pytest.MonkeyPatch, base_url: str, no_proxy: str, expected: str | None
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("https_proxy", "proxy:3128")
    monkeypatch.setenv("no_proxy", no_proxy)

    assert proxy_for(base_url) == expected


def test_a_proxy_of_another_kind_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "socks5://proxy:1080")
    monkeypatch.setenv("no_proxy", "")

    with pytest.raises(errors.SettingsError, match="HTTPS_PROXY: expected http"):
        proxy_for("https://api.runpod.ai/v2")


def test_line_break_at_the_end_of_a_key_is_dropped(base_url: str) -> None:
    assert runpod.Endpoint("ep", api_key="k\n").rp_client.headers["Authorization"] == "Bearer k"


@pytest.mark.parametrize("endpoint_id", ["", None, 7])
def test_an_endpoint_needs_an_id(base_url: str, endpoint_id: Any) -> None:
    with pytest.raises(errors.SettingsError, match="endpoint_id: expected a non-empty string"):
        runpod.Endpoint(endpoint_id)


def test_blocking_client_does_not_load_aiohttp() -> None:
    code = "import sys, runpod_worker; runpod_worker.Endpoint('ep', api_key='k'); print('aiohttp' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})

    assert done.stdout.strip() == "False"


async def test_clients_have_the_attributes_of_the_sdk(base_url: str) -> None:
    async with runpod.AsyncioEndpoint("ep", api_key="k") as endpoint:
        job = endpoint.job("job-1")
        assert endpoint.endpoint_url == f"{base_url}/ep/run"
        assert job.session is endpoint.session
        assert job.headers["Authorization"] == endpoint.headers["Authorization"] == "Bearer k"
    assert runpod.endpoint.runner.RunPodClient(api_key="k").api_key == "k"


def test_modules_of_the_sdk_are_importable_with_their_names() -> None:
    from runpod_worker.error import AuthenticationError, QueryError, RunPodError
    from runpod_worker.http_client import TooManyRequests
    from runpod_worker.serverless.modules import rp_http
    from runpod_worker.version import __version__, get_version

    assert issubclass(AuthenticationError, RunPodError)
    assert (str(QueryError("bad", "{x}")), QueryError(query="{x}").query) == ("bad", "{x}")
    assert issubclass(TooManyRequests, aiohttp.ClientResponseError)
    assert (rp_http.JOB_DONE_URL, __version__, get_version()) == ("JOB_DONE_URL", "1.12.0", "1.12.0")
