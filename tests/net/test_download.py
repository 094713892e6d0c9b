"""Downloads, from a real server."""

import threading

import pytest

from runpod_worker.core.errors import DownloadFailed, DownloadRefused
from runpod_worker.net.addresses import AddressRefused
from runpod_worker.net.cancel import Line
from runpod_worker.net.download import download, guard

PATIENCE_S = 30.0

ANY = guard(private=True)


@pytest.fixture
def get(tmp_path):
    def get(url, *, check=ANY, line=None, most_bytes=1000, timeout_s=PATIENCE_S):
        path = tmp_path / "file"
        download(
            url,
            path,
            most_bytes=most_bytes,
            timeout_s=timeout_s,
            check=check,
            line=line or Line(),
            random=lambda: 0.0,
        )
        return path.read_bytes()

    return get


def test_a_file_is_downloaded(get, file_server):
    file_server.files["/a b/ä.txt"] = file_server.files["/a%20b/%C3%A4.txt"] = b"content"

    assert get(file_server.url("/a b/ä.txt?key=1")) == b"content"
    assert file_server.requested == ["/a%20b/%C3%A4.txt?key=1"]


def test_redirects_are_followed_but_not_for_ever(get, file_server):
    file_server.files |= {"/a": "/b", "/b": file_server.url("/c"), "/c": b"there", "/round": "/round"}

    assert get(file_server.url("/a")) == b"there"
    with pytest.raises(DownloadRefused, match="more than 5 redirects"):
        get(file_server.url("/round"))


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}/", "http://localhost:{port}/", "http://2130706433:{port}/"])
def test_private_addresses_are_refused(get, file_server, url):
    port = file_server.url("").rpartition(":")[2]

    with pytest.raises(DownloadRefused, match=r"127\.0\.0\.1 is not a public address|::1 is not"):
        get(url.format(port=port), check=guard(private=False))

    assert file_server.requested == []


def test_each_redirect_is_checked_anew(get, file_server):
    def check(address):
        if address != "127.0.0.1":
            raise AddressRefused(address)

    file_server.files["/a"] = file_server.url("/secret", host="127.0.0.2")

    with pytest.raises(DownloadRefused, match=r"127\.0\.0\.2 is not a public address"):
        get(file_server.url("/a"), check=check)

    assert file_server.requested == ["/a"]


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/a", "http:///a", "http://host:0/", "http://[1/"])
def test_other_urls_are_refused(get, url):
    with pytest.raises(DownloadRefused):
        get(url)


def test_what_may_pass_is_tried_again(get, file_server):
    file_server.files |= {"/a": [503, (100, b"only this"), b"third time"], "/b": [500, 500, 502, b"too late"]}

    assert get(file_server.url("/a")) == b"third time"
    with pytest.raises(DownloadFailed, match="the server answers 502"):
        get(file_server.url("/b"))


def test_what_will_not_pass_is_not_tried_again(get, file_server):
    file_server.files["/a"] = 404

    with pytest.raises(DownloadFailed, match="the server answers 404 Not Found"):
        get(file_server.url("/a"))

    assert file_server.requested == ["/a"]


def test_a_file_that_ends_too_early_is_no_file(get, file_server):
    file_server.files["/a"] = (100, b"only this")

    with pytest.raises(DownloadFailed, match="91 bytes are missing"):
        get(file_server.url("/a"))


def test_a_file_that_is_too_large_is_not_downloaded(get, file_server):
    file_server.files["/a"] = bytes(1001)

    with pytest.raises(DownloadRefused, match="larger than 1000 bytes"):
        get(file_server.url("/a"))


def test_nobody_answers(get, file_server):
    file_server.close()

    with pytest.raises(DownloadFailed, match="ConnectionRefusedError"):
        get(file_server.url("/a"))


def test_a_cut_line_ends_a_download_that_waits(get, file_server):
    slow, line = file_server.slow("/a"), Line()
    errors = []

    def work():
        try:
            get(file_server.url("/a"), line=line)
        except DownloadFailed as error:
            errors.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    assert slow.requested.wait(PATIENCE_S)

    line.cut("not wanted")

    thread.join(PATIENCE_S)
    assert errors == ["not wanted"]
    assert slow.left.wait(PATIENCE_S)


def test_a_cut_line_lets_nothing_begin(get, file_server):
    line = Line()
    line.cut("not wanted")

    with pytest.raises(DownloadFailed, match="not wanted"):
        get(file_server.url("/a"), line=line)

    assert file_server.requested == []


def test_a_download_that_takes_too_long_ends(get, file_server):
    file_server.slow("/a")

    with pytest.raises(DownloadFailed, match=r"it took longer than 0\.2 s"):
        get(file_server.url("/a"), timeout_s=0.2)
