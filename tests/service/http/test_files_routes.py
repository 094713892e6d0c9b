"""Output files over HTTP."""

from __future__ import annotations

from contextlib import closing

import pytest

from runpod_worker.service.keys import DATABASE, KeyFile

TOKEN = "t" * 22


@pytest.fixture
async def running(serve, tmp_path):
    return await serve(data=tmp_path / "data", max_file_bytes=3 * 2**20)


async def test_the_extension_names_where_files_go(api, ours, running):
    reply = await api.get("/ping/w-1")

    assert reply.headers["X-Files-Url"] == f"{running.server.url}/v2/ep/files"
    assert "files" in reply.headers["X-Worker-Extensions"].split()


async def test_the_public_url_is_named_when_it_is_set(serve, tmp_path):
    running = await serve(data=tmp_path / "other", public_url="https://jobs.example.org/")

    reply = await running.api.get("/ping/w-1")

    assert reply.headers["X-Files-Url"] == "https://jobs.example.org/v2/ep/files"


async def test_a_picture_is_shown_in_place_and_never_as_another_type(api):
    job_id = await api.run()
    path = f"/files/{job_id}/{TOKEN}/out.png"

    put = await api.send("PUT", path, data=b"\x89PNG", headers={"Content-Type": "image/png"})
    got = await api.get(path)

    assert (put.status, put.body) == (200, b"{}")
    assert (got.status, got.body) == (200, b"\x89PNG")
    assert got.headers["Content-Type"] == "image/png"
    assert got.headers["X-Content-Type-Options"] == "nosniff"
    assert got.headers["Content-Disposition"] == 'inline; filename="out.png"'
    assert (await api.send("HEAD", path)).headers["Content-Length"] == "4"


async def test_a_compressed_file_never_stands_for_its_neighbour(api):
    job_id = await api.run()
    for name in ("r.json", "r.json.gz", "r.json.br"):
        await api.send("PUT", f"/files/{job_id}/{TOKEN}/{name}", data=name.encode())

    for headers in ({"Accept-Encoding": "gzip, deflate, br"}, {}):
        got = await api.send("GET", f"/files/{job_id}/{TOKEN}/r.json", headers=headers)
        assert (got.body, got.headers.get("Content-Encoding")) == (b"r.json", None)


async def test_a_part_of_a_file_is_sent(api):
    job_id = await api.run()
    await api.send("PUT", f"/files/{job_id}/{TOKEN}/a.txt", data=b"0123456789")

    got = await api.send("GET", f"/files/{job_id}/{TOKEN}/a.txt", headers={"Range": "bytes=2-4"})

    assert (got.status, got.body) == (206, b"234")


async def test_a_page_is_offered_for_download(api):
    job_id = await api.run()
    path = f"/files/{job_id}/{TOKEN}/x.html"
    await api.send("PUT", path, data=b"<script>", headers={"Content-Type": "text/html"})

    got = await api.get(path)

    assert got.headers["Content-Disposition"] == 'attachment; filename="x.html"'
    assert "sandbox" in got.headers["Content-Security-Policy"]


async def test_a_file_needs_a_job_of_that_endpoint(running, api):
    job_id = await api.run()

    for api_, job in ((api, "no-such-job"), (running.endpoint("other"), job_id)):
        assert (await api_.send("PUT", f"/files/{job}/{TOKEN}/a.png", data=b"x")).status == 404


@pytest.mark.parametrize("path", ["t/a.png", f"{TOKEN}/%2e%2e", f"{TOKEN}/..", f"{TOKEN}/a%2f..%2fb", f"{TOKEN}/a%00b"])
async def test_a_strange_name_is_refused(api, path):
    job_id = await api.run()

    for method in ("PUT", "GET"):
        assert (await api.send(method, f"/files/{job_id}/{path}", data=b"x")).status in (400, 404)


async def test_a_file_over_the_limit_is_refused(api):
    job_id = await api.run()

    async def pieces():
        for _ in range(4):
            yield b"x" * 2**20

    for data in (b"x" * 4 * 2**20, pieces()):
        reply = await api.send("PUT", f"/files/{job_id}/{TOKEN}/a.bin", data=data)
        assert reply.status == 400
        assert "exceeded max body size of 3MiB" in reply.json["detail"]
    assert (await api.get(f"/files/{job_id}/{TOKEN}/a.bin")).status == 404


async def test_reading_needs_no_key_and_writing_does(serve, tmp_path):
    with closing(KeyFile(tmp_path / "keyed" / DATABASE)) as keys:
        account = keys.ensure_account("ann")
        keys.add_endpoint(account, "ep")
        keys.add_key(account, "k")
    running = await serve(data=tmp_path / "keyed")
    auth = {"Authorization": "k"}
    job_id = (await running.api.post("/run", {"input": 1}, headers=auth)).json["id"]
    path = f"/files/{job_id}/{TOKEN}/a.txt"

    assert (await running.api.send("PUT", path, data=b"x")).status == 401
    assert (await running.api.send("PUT", path, data=b"x", headers=auth)).status == 200
    assert (await running.api.get(path)).body == b"x"
