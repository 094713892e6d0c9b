"""Downloads, uploads and the cache on the volume, against real servers and folders."""

import io
import os
import threading
import time
import urllib.request
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from runpod_worker.serverless import VolumeCache
from runpod_worker.serverless.utils import rp_upload
from runpod_worker.serverless.utils.rp_download import download_files_from_urls, file
from runpod_worker.serverless.utils.rp_ssrf import SSRFError


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ------------------------------------------------------------------ downloads


def archive(*names, content=b"content"):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as made:
        for name in names:
            made.writestr(name, content)
    return data.getvalue()


class Site(BaseHTTPRequestHandler):
    replies: ClassVar[dict] = {}
    seen: ClassVar[list] = []

    def do_GET(self):
        self.seen.append(self.path)
        status, headers, body = self.replies.get(self.path.partition("?")[0], (404, {}, b"not here"))
        if callable(body):
            status, body = body(self.seen.count(self.path))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setenv("RUNPOD_ALLOW_PRIVATE_DOWNLOAD_URLS", "yes")
    Site.replies, Site.seen = {}, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))  # seconds until it sees its shutdown
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_files_are_downloaded_in_order_with_the_suffix_they_have(site, folder):
    Site.replies |= {
        "/a.png": (200, {}, b"A"),
        "/b": (200, {"Content-Disposition": 'attachment; filename="../up/na me.tar"'}, b"B"),
    }

    paths = download_files_from_urls("job-1", [f"{site}/a.png?x=1", None, f"{site}/b"])

    first, nothing, second = paths
    assert nothing is None
    assert (Path(first).read_bytes(), Path(first).suffix) == (b"A", ".png")
    assert (Path(second).read_bytes(), Path(second).suffix) == (b"B", ".tar")
    assert Path(first).parent == folder / "jobs/job-1/downloaded_files"
    assert len(download_files_from_urls("job-2", f"{site}/a.png")) == 1


def test_a_file_is_tried_three_times(site):
    Site.replies["/late"] = (200, {}, lambda tries: (200, b"at last") if tries == 3 else (503, b""))
    Site.replies["/never"] = (500, {}, b"")
    pauses = []

    late, never = download_files_from_urls("job", [f"{site}/late", f"{site}/never"], sleep=pauses.append)

    assert Path(late).read_bytes() == b"at last"
    assert never is None
    assert Site.seen.count("/never") == 3
    assert len(pauses) == 4


def test_a_connection_that_ends_early_leaves_no_half_file(site, folder):
    Site.replies["/half"] = (200, {"Content-Length": "100"}, b"half")

    assert download_files_from_urls("job", f"{site}/half", sleep=lambda _: None) == [None]
    assert not list((folder / "jobs/job/downloaded_files").iterdir())


def test_redirects_are_followed_but_not_for_ever(site):
    Site.replies |= {
        "/from": (302, {"Location": "/to.txt"}, b""),
        "/to.txt": (200, {}, b"there"),
        "/round": (302, {"Location": "/round"}, b""),
    }

    assert Path(download_files_from_urls("job", f"{site}/from")[0]).read_bytes() == b"there"
    with pytest.raises(SSRFError, match="more than 5 redirects"):
        download_files_from_urls("job", f"{site}/round")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/a",
        "http://localhost:{port}/a",
        "http://[::ffff:127.0.0.1]:{port}/a",
        "http://2130706433:{port}/a",
        "http://169.254.169.254/latest/meta-data",
        "http://100.64.0.1/",
        "file:///etc/passwd",
        "ftp://example.com/a",
        "no url",
    ],
)
def test_private_addresses_and_other_schemes_are_refused(site, monkeypatch, url):
    monkeypatch.delenv("RUNPOD_ALLOW_PRIVATE_DOWNLOAD_URLS")
    port = site.rpartition(":")[2]

    with pytest.raises(SSRFError):
        download_files_from_urls("job", url.format(port=port))
    with pytest.raises(SSRFError):
        file(url.format(port=port))
    assert Site.seen == []


def test_a_file_over_the_limit_is_refused_and_removed(site, folder, monkeypatch):
    monkeypatch.setenv("RUNPOD_MAX_DOWNLOAD_BYTES", "10")
    Site.replies["/big"] = (200, {}, b"x" * 11)

    with pytest.raises(SSRFError, match="larger than 10 bytes"):
        download_files_from_urls("job", f"{site}/big")
    assert not list((folder / "jobs/job/downloaded_files").iterdir())


@pytest.mark.parametrize("job_id", ["../up", "a/b", "..", ""])
def test_a_job_id_that_is_no_folders_name_is_refused(job_id):
    with pytest.raises(ValueError, match="job_id: expected the name of one folder"):
        download_files_from_urls(job_id, "http://example.com/a")


def test_one_file_with_its_name_and_archives_extracted(site, folder):
    Site.replies |= {
        "/data.zip": (200, {}, archive("in/side.txt")),
        "/plain.txt": (200, {"Content-Disposition": "attachment; filename=named.csv"}, b"1,2"),
    }

    extracted, plain = file(f"{site}/data.zip"), file(f"{site}/plain.txt")

    assert (extracted["type"], extracted["original_name"]) == ("zip", "data.zip")
    assert Path(extracted["extracted_path"], "in/side.txt").read_bytes() == b"content"
    assert (plain["type"], plain["original_name"], plain["extracted_path"]) == ("csv", "named.csv", None)
    assert Path(plain["file_path"]).parent == folder / "job_files"


@pytest.mark.parametrize("damage", [lambda data: b"no archive", lambda data: data[:30] + b"\xff" * 8 + data[38:]])
def test_a_corrupt_archive_is_an_error_and_leaves_no_file(site, folder, damage):
    Site.replies["/corrupt.zip"] = (200, {}, damage(archive("in/side.txt", content=b"content" * 100)))

    with pytest.raises(OSError, match="the file is not a zip archive that can be extracted"):
        file(f"{site}/corrupt.zip")
    assert list((folder / "job_files").iterdir()) == []


def test_an_archive_that_would_fill_the_disk_is_not_extracted(site, monkeypatch):
    Site.replies["/bomb.zip"] = (200, {}, archive("zeros", content=b"\0" * 1_000_000))
    monkeypatch.setenv("RUNPOD_MAX_DOWNLOAD_BYTES", "100000")

    with pytest.raises(SSRFError, match="the archive holds 1 files of 1000000 bytes"):
        file(f"{site}/bomb.zip")


# ------------------------------------------------------------------ uploads


@pytest.fixture(scope="module")
def s3():
    moto = pytest.importorskip("moto.server")

    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def creds(s3):
    made = {"endpointUrl": s3, "accessId": "id", "accessSecret": "secret", "bucketName": "results"}
    rp_upload.get_boto_client(made)[0].create_bucket(Bucket="results")
    return made


def fetched(url):
    with urllib.request.urlopen(url) as reply:
        return reply.read(), reply.headers["Content-Type"]


def test_files_and_bytes_are_uploaded_and_can_be_read_for_a_week(creds, folder):
    (folder / "out.bin").write_bytes(b"x" * 20_000_000)  # several parts

    stored = rp_upload.upload_file_to_bucket(
        "named.bin", "out.bin", creds, prefix="job-1", extra_args={"ContentType": "text/x-mine"}
    )
    memory = rp_upload.upload_in_memory_object("mem.txt", b"bytes", creds, bucket_name="results")

    assert "/results/job-1/named.bin?" in stored
    assert "X-Amz-Expires=604800" in stored
    data, kind = fetched(stored)
    assert (len(data), kind) == (20_000_000, "text/x-mine")
    assert fetched(memory)[0] == b"bytes"


def test_images_go_where_the_variables_say(creds, folder, monkeypatch):
    monkeypatch.setenv("BUCKET_ENDPOINT_URL", creds["endpointUrl"])
    monkeypatch.setenv("BUCKET_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("BUCKET_SECRET_ACCESS_KEY", "secret")
    bucket = time.strftime("%m-%y")
    rp_upload.get_boto_client()[0].create_bucket(Bucket=bucket)
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(name.encode())

    results: list[str | None] = [None, None]
    single = rp_upload.upload_image("job", "a.png", 1, results)
    several = rp_upload.files("job", ["a.png", "b.png"])

    assert f"/{bucket}/job/" in single
    assert results == [None, single]
    assert [fetched(url) for url in several] == [(b"a.png", "image/png"), (b"b.png", "image/png")]


def test_unsigned_urls_of_a_bucket_of_ones_own(creds, folder):
    (folder / "a b.txt").write_bytes(b"text")

    assert rp_upload.bucket_upload("job", ["a b.txt"], creds) == [f"{creds['endpointUrl']}/results/job/a%20b.txt"]


def test_without_credentials_there_are_local_copies(folder):
    (folder / "a.png").write_bytes(b"A")

    assert rp_upload.upload_file_to_bucket("n.png", "a.png") == "local_upload/n.png"
    assert rp_upload.upload_in_memory_object("m", b"M") == "local_upload/m"
    image = rp_upload.upload_image("job", "a.png")

    assert image.startswith("simulated_uploaded/")
    assert (folder / image).read_bytes() == b"A"
    assert (folder / "local_upload/m").read_bytes() == b"M"


def test_credentials_that_are_incomplete_are_named():
    with pytest.raises(TypeError, match=r"bucket_creds\['accessId'\]: expected a string, got NoneType"):
        rp_upload.upload_in_memory_object("m", b"M", {"endpointUrl": "http://x"})


@pytest.mark.parametrize(
    ("url", "region"),
    [
        ("https://s3.us-west-004.backblazeb2.com", "us-west-004"),
        ("https://bucket.s3.eu-north-1.amazonaws.com", "eu-north-1"),
        ("https://s3.amazonaws.com", None),
        ("https://nyc3.digitaloceanspaces.com", "nyc3"),
        ("https://bucket.nyc3.digitaloceanspaces.com", "nyc3"),
        ("https://storage.example.org", None),
    ],
)
def test_the_region_a_url_names(url, region):
    assert rp_upload.extract_region_from_url(url) == region


# ------------------------------------------------------------------ cache


@pytest.fixture
def cached(folder):
    (folder / "volume").mkdir()

    def made():
        return VolumeCache(folder / "models", namespace="ep", volume_path=folder / "volume", best_effort=False)

    return made


def fill(folder, **files):
    for name, content in files.items():
        path = folder / "models" / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def emptied(folder):
    for path in sorted((folder / "models").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


BIG = os.urandom(300_000)


def test_what_was_added_is_there_for_the_next_worker(cached, folder):
    with cached():
        fill(folder, small=b"s", sub__big=BIG)
    _finish()
    emptied(folder)

    assert cached().hydrate() == 2
    assert (folder / "models/small").read_bytes() == b"s"
    assert (folder / "models/sub/big").read_bytes() == BIG
    assert cached().hydrate() == 0


def _finish():
    from runpod_worker.serverless.utils import rp_volume_cache

    rp_volume_cache._join()


def test_the_layout_is_the_sdks(cached, folder):
    fill(folder, small=b"s", big=BIG, **{"x.lock": b""}, refs__main=b"r")

    cached().sync(background=False)

    root = folder / "volume/.cache/ep"
    assert sorted(path.name for path in root.iterdir()) == ["big", "manifest.json", "small.tar"]
    assert (root / "big" / str(folder / "models/big").lstrip("/")).read_bytes() == BIG


def test_removed_small_files_do_not_come_back_and_changed_ones_do(cached, folder):
    fill(folder, a=b"1", b=b"1", big=BIG)
    cached().sync(background=False)
    (folder / "models/a").unlink()
    fill(folder, b=b"22", big=BIG + b"x")
    cached().sync(background=False)
    emptied(folder)

    cached().hydrate()

    assert not (folder / "models/a").exists()
    assert (folder / "models/b").read_bytes() == b"22"
    assert (folder / "models/big").read_bytes() == BIG + b"x"


def test_newer_local_files_are_kept(cached, folder):
    fill(folder, a=b"old")
    cached().sync(background=False)
    fill(folder, a=b"new")
    os.utime(folder / "models/a", (time.time() + 100, time.time() + 100))

    assert cached().hydrate() == 0
    assert (folder / "models/a").read_bytes() == b"new"


def test_a_manifest_that_leads_elsewhere_is_not_followed(cached, folder):
    fill(folder, big=BIG)
    cached().sync(background=False)
    manifest = folder / "volume/.cache/ep/manifest.json"
    victim = folder / "victim"
    manifest.write_text(manifest.read_text().replace(str(folder / "models/big"), str(victim)))
    source = folder / "volume/.cache/ep/big" / str(victim).lstrip("/")
    source.write_bytes(BIG)

    assert cached().hydrate() == 0
    assert not victim.exists()


def test_without_volume_or_namespace_nothing_happens(folder):
    for cache in (VolumeCache("x", namespace="ep", volume_path=folder / "no"), VolumeCache("x", volume_path=folder)):
        assert not cache.available
        assert cache.hydrate() == 0
        cache.sync(background=False)
    with pytest.raises(ValueError, match="namespace must be a single safe path component"):
        VolumeCache("x", namespace="../up")


def test_errors_are_logged_unless_they_are_wanted(cached, folder, caplog):
    fill(folder, a=b"1")
    cached().sync(background=False)
    (folder / "volume/.cache/ep/small.tar").write_bytes(b"garbage")
    emptied(folder)

    lenient = VolumeCache(folder / "models", namespace="ep", volume_path=folder / "volume")
    assert lenient.hydrate() == 0
    with pytest.raises(Exception, match="could not be opened"):
        cached().hydrate()
