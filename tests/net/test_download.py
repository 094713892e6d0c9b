"""Downloads, from a real server."""

import asyncio

import pytest

from runpod_worker.core.errors import DownloadFailed, DownloadRefused
from runpod_worker.net import connector
from runpod_worker.net.download import download

WAIT_S = 30.0


@pytest.fixture
def get(tmp_path):
    async def get(url, *, private=True, max_bytes=1000, timeout_s=WAIT_S):
        path = tmp_path / "file"
        await download(url, path, max_bytes=max_bytes, timeout_s=timeout_s, random=lambda: 0.0, private=private)
        return path.read_bytes()

    return get


async def test_a_file_is_downloaded(get, file_server):
    file_server.files["/a b/ä.txt"] = file_server.files["/a%20b/%C3%A4.txt"] = b"content"

    assert await get(file_server.url("/a b/ä.txt?key=1")) == b"content"
    assert file_server.requested == ["/a%20b/%C3%A4.txt?key=1"]


@pytest.mark.parametrize("target", ["/a%2Fb%7Ec?x=%2B+%20&y='(1)'", "/a//b/?", "/?q=a/b?c"])
async def test_a_signed_url_reaches_the_server_as_it_is(get, file_server, target):
    file_server.files[target.partition("?")[0]] = b"content"

    assert await get(file_server.url(target) + "#part") == b"content"

    assert file_server.requested == [target.removesuffix("?")]


async def test_redirects_are_followed_but_not_for_ever(get, file_server):
    file_server.files |= {"/a": "/b", "/b": file_server.url("/c"), "/c": b"there", "/round": "/round"}

    assert await get(file_server.url("/a")) == b"there"
    with pytest.raises(DownloadRefused, match="more than 5 redirects"):
        await get(file_server.url("/round"))


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}/", "http://localhost:{port}/", "http://2130706433:{port}/"])
async def test_private_addresses_are_refused(get, file_server, url):
    port = file_server.url("").rpartition(":")[2]

    with pytest.raises(DownloadRefused, match=r"(127\.0\.0\.1|2130706433|::1) is not a public|not valid"):
        await get(url.format(port=port), private=False)

    assert file_server.requested == []


async def test_each_redirect_is_checked_anew(get, file_server, monkeypatch):
    monkeypatch.setattr(connector, "is_public", "127.0.0.1".__eq__)
    file_server.files["/a"] = file_server.url("/secret", host="127.0.0.2")

    with pytest.raises(DownloadRefused, match=r"127\.0\.0\.2 is not a public address"):
        await get(file_server.url("/a"), private=False)

    assert file_server.requested == ["/a"]


async def test_a_redirect_to_another_scheme_is_refused(get, file_server):
    file_server.files["/a"] = "file:///etc/passwd"

    with pytest.raises(DownloadRefused, match="got scheme 'file'"):
        await get(file_server.url("/a"))


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/a", "http:///a", "http://host:0/", "http://[1/"])
async def test_other_urls_are_refused(get, url):
    with pytest.raises(DownloadRefused):
        await get(url)


async def test_a_transient_failure_is_tried_again(get, file_server):
    file_server.files |= {"/a": [503, (100, b"only this"), b"third time"], "/b": [500, 500, 502, b"too late"]}

    assert await get(file_server.url("/a")) == b"third time"
    with pytest.raises(DownloadFailed, match="the server answers 502"):
        await get(file_server.url("/b"))


async def test_a_lasting_failure_is_not_tried_again(get, file_server):
    file_server.files["/a"] = 404

    with pytest.raises(DownloadFailed, match="the server answers 404 Not Found"):
        await get(file_server.url("/a"))

    assert file_server.requested == ["/a"]


async def test_a_file_that_ends_too_early_is_no_file(get, file_server):
    file_server.files["/a"] = (100, b"only this")

    with pytest.raises(DownloadFailed, match="91 bytes are missing"):
        await get(file_server.url("/a"))


async def test_a_file_that_is_too_large_is_not_downloaded(get, file_server):
    file_server.files["/a"] = bytes(1001)

    with pytest.raises(DownloadRefused, match="larger than 1000 bytes"):
        await get(file_server.url("/a"))


async def test_a_server_that_is_not_there_fails_the_download_without_the_urls_secrets(get, file_server):
    file_server.close()

    with pytest.raises(DownloadFailed, match="ConnectionRefusedError") as caught:
        await get(file_server.url("/a?key=secret"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "xn--.invalid", "a" * 64 + ".invalid"])
async def test_a_host_without_an_address_fails_the_download(get, host):
    with pytest.raises((DownloadFailed, DownloadRefused)) as caught:
        await get(f"http://{host}/a?key=secret")
    assert "secret" not in str(caught.value)


async def test_a_cancelled_download_closes_its_connection(get, file_server):
    slow = file_server.slow("/a")
    task = asyncio.create_task(get(file_server.url("/a")))
    assert await asyncio.to_thread(slow.requested.wait, WAIT_S)

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(slow.left.wait, WAIT_S)


async def test_a_download_that_takes_too_long_fails(get, file_server):
    file_server.slow("/a")

    with pytest.raises(DownloadFailed, match=r"it took longer than 0\.2 s"):
        await get(file_server.url("/a"), timeout_s=0.2)


async def test_a_file_that_cannot_be_written_fails_as_what_it_is(get, file_server, tmp_path):
    file_server.files["/a"] = b"content"
    (tmp_path / "file").mkdir()

    with pytest.raises(IsADirectoryError):
        await get(file_server.url("/a"))
