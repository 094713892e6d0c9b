"""Who may speak to which endpoint."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from runpod_worker.core.errors import SettingsError
from runpod_worker.service.http.guard import is_loopback
from runpod_worker.service.journal.null import NullJournal
from runpod_worker.service.keys import DATABASE, REFRESH_S, KeyFile, Keys
from runpod_worker.service.server import Server, Stores, open_stores
from runpod_worker.service.settings import ServiceSettings


@pytest.fixture
def key_file(tmp_path: Path) -> Iterator[KeyFile]:
    """Each account has an endpoint of its own name and one key."""
    with closing(KeyFile(tmp_path / DATABASE)) as file:
        for name in ("ann", "bob"):
            account = file.ensure_account(name)
            file.add_endpoint(account, name)
            file.add_key(account, f"key-of-{name}")
        yield file


@pytest.fixture
async def guarded(serve, key_file, tmp_path):
    return await serve(data=tmp_path)


@pytest.mark.parametrize("value", ["key-of-ann", "Bearer key-of-ann", "bearer  key-of-ann", "BEARER key-of-ann "])
async def test_the_accounts_key_is_accepted_with_and_without_bearer(guarded, value):
    for header in ("Authorization", "authorization"):
        reply = await guarded.endpoint("ann").post("/run", {"input": 1}, headers={header: value})
        assert reply.status == 200


@pytest.mark.parametrize(
    ("endpoint", "value", "status", "detail"),
    [
        ("ann", None, 401, "no token provided"),
        ("ann", "", 401, "no token provided"),
        ("ann", "Basic dXNlcjpwYXNz", 401, "no token provided"),
        ("ann", "wrong", 401, "invalid api key"),
        ("ann", "Bearer", 401, "invalid api key"),
        ("ann", "key-of-bob", 401, "invalid api key"),
        ("nobody", "key-of-bob", 404, "endpoint not found"),
    ],
)
async def test_everything_else_is_refused(guarded, endpoint, value, status, detail):
    headers = {"Authorization": value} if value is not None else {}

    for method, path in (("POST", "/run"), ("GET", "/status/x"), ("GET", "/job-take/w"), ("GET", "/ping/w")):
        reply = await guarded.endpoint(endpoint).send(method, path, headers=headers)

        assert (reply.status, reply.json["detail"]) == (status, detail)


async def test_a_key_that_is_no_text_is_an_unknown_key(guarded):
    host, port = guarded.server.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    async with asyncio.timeout(20):
        writer.write(b"GET /v2/ann/health HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 401 ")
    writer.close()


async def test_without_keys_a_service_on_loopback_answers_every_caller(api):
    assert (await api.post("/run", {"input": 1}, headers={"Authorization": "Bearer anything"})).status == 200
    assert (await api.post("/run", {"input": 1})).status == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "example.org"])
async def test_without_keys_a_service_refuses_to_listen_elsewhere(host):
    settings = ServiceSettings(host=host, port=0)
    server = Server(settings, open_stores(settings))

    with pytest.raises(SettingsError, match="without API keys every caller could use the service"):
        await server.start()
    await server.close()


async def test_a_service_that_others_reach_stays_locked_when_its_last_key_is_revoked(serve, key_file, tmp_path, clock):
    stores = Stores(journal=NullJournal(), keys=Keys(tmp_path / DATABASE, clock=clock))
    running = await serve(stores=stores, host="0.0.0.0")
    ann = running.endpoint("ann")
    ann.base = ann.base.replace("0.0.0.0", "127.0.0.1")
    headers = {"Authorization": "key-of-ann"}
    assert (await ann.post("/run", {"input": 1}, headers=headers)).status == 200

    for _, _, [info] in key_file.accounts():
        assert key_file.revoke(info.fingerprint) == 1
    clock.time += REFRESH_S

    assert (await ann.post("/run", {"input": 1}, headers=headers)).status == 401
    assert (await ann.post("/run", {"input": 1})).status == 401


def test_what_is_loopback():
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "localhost.example.org", "")))
