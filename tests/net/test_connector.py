"""Which addresses may be called on behalf of others, checked at the socket."""

import asyncio
import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver

from runpod_worker.net import connector as net


class Names(AbstractResolver):
    """Names that resolve as a test wants, with another answer on each call."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)

    async def resolve(self, host, port=0, family=socket.AF_INET):
        addresses = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [
            {
                "hostname": host,
                "host": address,
                "port": port,
                "family": socket.AF_INET6 if ":" in address else socket.AF_INET,
                "proto": 0,
                "flags": 0,
            }
            for address in addresses
        ]

    async def close(self) -> None:
        return


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """A server on loopback that says whether it was reached."""

    async def hello(_: web.Request) -> web.Response:
        return web.Response(text="reached")

    app = web.Application()
    app.router.add_get("/", hello)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield runner.addresses[0][1]
    await runner.cleanup()


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8"])
def test_public_addresses_are_public(address):
    assert net.is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "172.16.3.4",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "2002:7f00:1::",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b::a83f:8110",
        "64:ff9b:1::1",
        "64:ff9b:1::5db8:d822",
        "168.63.129.16",
        "::ffff:168.63.129.16",
        "2002:a83f:8110::1",
        "192.0.0.192",
        "192.88.99.1",
        "198.18.0.1",
        "240.0.0.1",
        "fec0::1",
        "::7f00:1",
        "::5db8:d822",
        "100::1",
        "5f00::1",
        "2001:db8::1",
        "3fff::1",
        "not an address",
    ],
)
def test_all_others_are_not(address):
    assert not net.is_public(address)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1", "[::ffff:127.0.0.1]"])
async def test_loopback_is_refused_however_it_is_written(port, host):
    async with aiohttp.ClientSession(connector=net.connector()) as session:
        with pytest.raises((aiohttp.ClientConnectorError, aiohttp.InvalidURL)) as caught:
            await session.get(f"http://{host}:{port}/")

    assert net.refused(caught.value) or isinstance(caught.value, aiohttp.InvalidURL)  # newer aiohttp has its own check


async def test_private_addresses_are_called_when_allowed(port):
    session = aiohttp.ClientSession(connector=net.connector(private=True))
    async with session, session.get(f"http://127.0.0.1:{port}/") as reply:
        assert await reply.text() == "reached"


async def test_name_with_private_addresses_only_is_refused(port):
    resolver = Names(["127.0.0.1", "10.0.0.1", "::1"])
    async with aiohttp.ClientSession(connector=net.connector(resolver=resolver)) as session:
        with pytest.raises(aiohttp.ClientConnectorError) as caught:
            await session.get(f"http://innocent.example:{port}/")

    assert net.refused(caught.value)


async def test_name_that_changes_its_address_gains_nothing(port):
    """First a public answer, then loopback: the check sees the address the socket gets."""
    resolver = Names(["192.0.2.1"], ["127.0.0.1"])
    for _ in range(2):
        async with aiohttp.ClientSession(connector=net.connector(resolver=resolver)) as session:
            with pytest.raises(aiohttp.ClientConnectorError) as caught:
                await session.get(f"http://rebinding.example:{port}/")
        assert net.refused(caught.value)


async def test_connection_that_just_fails_is_not_called_refused():
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        async with aiohttp.ClientSession(connector=net.connector(private=True)) as session:
            with pytest.raises(aiohttp.ClientConnectorError) as caught:
                await asyncio.wait_for(session.get(f"http://127.0.0.1:{nobody.getsockname()[1]}/"), 30)

    assert not net.refused(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://x/",
        "file:///etc/passwd",
        "gopher://x",
        "x",
        "",
        "http://",
        "http:///x",
        "//x/",
        "http://x:99999/",
        "http://[::1/",
    ],
)
def test_only_http_urls_with_a_host_are_urls(url):
    with pytest.raises(ValueError, match="expected"):
        net.check_url(url)


def test_error_does_not_repeat_what_may_be_secret():
    with pytest.raises(ValueError, match="expected") as caught:
        net.check_url("ftp://user:password@x/?token=secret")

    assert "password" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_url_comes_back_parsed():
    assert net.check_url("https://Example.com/a?b=c").host == "example.com"
