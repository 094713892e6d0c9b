"""A page in somebody's browser can neither submit nor take jobs: it names another host or origin, or sends no JSON."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from runpod_worker.core.errors import ServiceRefusal
from runpod_worker.service.http.guard import Guard, SourceRefused, WrongType, require_json
from runpod_worker.service.http.requests import Call, PlainRequest
from runpod_worker.service.journal.null import NullJournal
from runpod_worker.service.keys import DATABASE, REFRESH_S, KeyFile, Keys
from runpod_worker.service.server import Stores

JSON = {"Content-Type": "application/json"}


def refusal(guard: Guard, method: str = "POST", *, has_key: bool = False, **headers: str) -> str:
    """Which header is refused, empty for none."""
    try:
        guard.check(method, {name.replace("_", "-"): value for name, value in headers.items()}, has_key=has_key)
    except SourceRefused as error:
        return str(error).partition(":")[0]
    return ""


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8000", "localhost.", "127.0.0.1:8000", "127.9.9.9", "[::1]:8000", "jobs.example:1"]
)
def test_loopback_names_and_allowed_names_are_answered_without_keys(host: str) -> None:
    assert refusal(Guard(["jobs.example:8443"]), Host=host) == ""


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "0.0.0.0:8000", "10.1.1.1", "", "["])
def test_other_names_are_refused_without_keys_and_pass_with_a_key(host: str) -> None:
    assert refusal(Guard(), Host=host) == "Host"
    assert refusal(Guard(), Host=host, has_key=True) == ""


@pytest.mark.parametrize("host", ["10.0.0.1:8000", "[fd00::1]:8000", "worker:8000", "pod1-8000.proxy.runpod.net"])
def test_a_service_that_is_open_to_other_machines_is_called_by_names_that_no_page_can_point_elsewhere(
    host: str,
) -> None:
    assert refusal(Guard(reachable=True), Host=host) == ""
    assert refusal(Guard(reachable=True), Host="evil.example") == "Host"


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://localhost:8000", True),
        ("https://app.example", True),
        ("https://app.example:9", True),
        ("http://localhost:3000", False),
        ("https://evil.example", False),
        ("null", False),
        ("", False),
        ("http://[", False),
    ],
)
def test_pages_of_the_same_origin_and_of_allowed_hosts_may_call(origin: str, allowed: bool) -> None:
    for method, has_key in (("POST", False), ("POST", True), ("GET", False)):
        refused = refusal(Guard(["app.example"]), method, Host="localhost:8000", Origin=origin, has_key=has_key)
        assert refused == ("" if allowed else "Origin")


def test_a_proxy_may_end_tls_and_drop_the_default_port() -> None:
    assert refusal(Guard(), Host="jobs.example", Origin="https://jobs.example:443", has_key=True) == ""


def test_a_request_without_origin_of_another_site_is_refused() -> None:
    for site, expected in (("cross-site", "Sec-Fetch-Site"), ("same-site", "Sec-Fetch-Site"), ("none", "")):
        assert refusal(Guard(), "GET", Host="localhost", Sec_Fetch_Site=site) == expected


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8", "application/vnd.x+json"])
async def test_json_is_taken(api, kind: str) -> None:
    assert (await api.send("POST", "/run", data=b'{"input": 1}', headers={"Content-Type": kind})).status == 200


@pytest.mark.parametrize("headers", [{}, {"Content-Type": "text/plain"}, {"Content-Type": "multipart/form-data"}])
def test_another_type_is_refused_with_the_header_to_send(headers: dict[str, str]) -> None:
    for length in ({"Content-Length": "2"}, {"Transfer-Encoding": "chunked"}):
        with pytest.raises(WrongType, match="Send the header `Content-Type: application/json`"):
            require_json({**headers, **length})
    require_json({**headers, "Content-Length": "0"})


async def test_a_page_can_neither_submit_nor_take(api) -> None:
    await api.run()
    page = {"Origin": "https://evil.example"}

    for method, path, headers, status in (
        ("POST", "/run", {"Content-Type": "text/plain"}, 415),
        ("POST", "/run", {}, 415),
        ("POST", "/run", JSON | page, 403),
        ("POST", "/openai/v1/responses", {"Content-Type": "text/plain"}, 415),
        ("POST", "/job-done/w/x?gpu=A", {"Content-Type": "text/plain"} | page, 403),
        ("GET", "/job-take/w?gpu=A", {"Sec-Fetch-Site": "cross-site"}, 403),
        ("GET", "/job-take/w?gpu=A", {"Host": "rebound.example"}, 403),
    ):
        reply = await api.send(method, path, data=b'{"input": 1}' if method != "GET" else None, headers=headers)
        assert reply.status == status, (method, path, headers)

    assert (await api.get("/health")).json["jobs"]["inQueue"] == 1


async def test_names_of_the_settings_are_answered(serve) -> None:
    running = await serve(allowed_hosts="one.example, two.example", public_url="https://three.example/x")

    for name, status in (("one.example", 200), ("two.example", 200), ("three.example", 200), ("four.example", 403)):
        assert (await running.api.get("/health", headers={"Host": name})).status == status


async def test_a_service_on_loopback_stays_locked_when_its_last_key_is_revoked(serve, tmp_path: Path, clock) -> None:
    with closing(KeyFile(tmp_path / DATABASE)) as file:
        stores = Stores(journal=NullJournal(), keys=Keys(tmp_path / DATABASE, clock=clock))
        running = await serve(stores=stores)
        account = file.ensure_account("ann")
        file.add_endpoint(account, "ep")
        file.add_key(account, "key-of-ann")
        [(_, _, [info])] = file.accounts()
        file.revoke(info.fingerprint)
        clock.time += REFRESH_S

        assert (await running.api.get("/health")).status == 401
        assert (await running.api.get("/health", headers={"Authorization": "key-of-ann"})).status == 401

    again = await serve(stores=Stores(journal=NullJournal(), keys=Keys(tmp_path / DATABASE)))
    assert (await again.api.get("/health")).status == 401, "a restart does not open it either"


async def test_every_post_route_of_callers_wants_json_and_no_worker_route_does(running) -> None:
    wants = set()
    for verb, route in running.server.app._routes.items():
        if "POST" in route.methods:
            call = Call(PlainRequest("POST", "/", {"Content-Length": "2"}), "ep", verb, (), {})
            try:
                running.server.app._check_access(call, route)
            except ServiceRefusal:
                wants.add(verb)

    callers = "run runsync status status-sync stream cancel retry purge-queue health openai"
    assert wants == set(callers.split())
