"""Output files in a folder: what is kept, what is refused, what a crash or a thief finds."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runpod_worker.core.errors import BadRequest, StoreUnavailable, TooLarge
from runpod_worker.service.files import DEFAULT_TYPE, SERVE_HEADERS, FileName, FolderFiles, content_disposition

TOKEN = "t" * 22


def named(name: str = "out.png", job_id: str = "job-1", token: str = TOKEN) -> FileName:
    return FileName(job_id=job_id, token=token, name=name)


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "files"


@pytest.fixture
def files(root: Path) -> FolderFiles:
    return FolderFiles(root)


async def test_file_comes_back_with_its_type(files):
    await files.put(named(), "image/png", pieces(b"PN", b"G"), limit=100)

    stored = await files.open(named())

    assert (stored.path.read_bytes(), stored.content_type) == (b"PNG", "image/png")


async def test_large_file_in_many_pieces(files):
    await files.put(named(), "video/mp4", pieces(*[b"x" * 700_000] * 10), limit=10**8)

    assert (await files.open(named())).path.stat().st_size == 7_000_000


async def test_empty_file_is_a_file(files):
    await files.put(named(), "text/plain; charset=utf-8", pieces(), limit=0)

    stored = await files.open(named())
    assert (stored.path.read_bytes(), stored.content_type) == (b"", "text/plain; charset=utf-8")


async def test_second_put_replaces_the_first(files, root):
    await files.put(named(), "image/png", pieces(b"old"), limit=100)
    await files.put(named(), "image/jpeg", pieces(b"new"), limit=100)

    stored = await files.open(named())
    assert (stored.path.read_bytes(), stored.content_type) == (b"new", "image/jpeg")
    assert sorted(path.name for path in stored.path.parent.iterdir()) == [".out.png.type", "out.png"]


async def test_too_large_file_leaves_nothing(files, root):
    with pytest.raises(TooLarge):
        await files.put(named(), "image/png", pieces(b"12345", b"67890"), limit=9)

    assert await files.open(named()) is None
    assert [path for path in root.rglob("*") if path.is_file()] == []


async def test_broken_upload_leaves_the_file_that_was_there(files, root):
    async def breaks() -> AsyncIterator[bytes]:
        yield b"half"
        raise ConnectionResetError

    await files.put(named(), "image/png", pieces(b"whole"), limit=100)
    with pytest.raises(StoreUnavailable):
        await files.put(named(), "image/png", breaks(), limit=100)

    assert (await files.open(named())).path.read_bytes() == b"whole"
    assert len([path for path in root.rglob("*") if path.is_file()]) == 2


async def test_token_is_the_capability(files):
    await files.put(named(), "image/png", pieces(b"x"), limit=9)

    assert await files.open(named(token="u" * 22)) is None
    assert await files.open(named(job_id="job-2")) is None
    assert await files.open(named(name="other.png")) is None
    assert await files.open(named(name="type")) is None


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "../x", "a\\b", "a\0b", "a\nb", "\x7f", "\x85", "\ud800.png", "a" * 256, "ü" * 128]
)
def test_names_that_could_leave_their_folder_are_refused(name):
    with pytest.raises(BadRequest, match="name"):
        named(name=name)


NAMES = [
    "my picture.png",
    "photo (1).jpg",
    "bild_ä.png",
    "a" * 154,
    "ü" * 127 + "x",
    ".hidden",
    ".a.type",
    "=x",
    "100%.txt",
]


@pytest.mark.parametrize("name", NAMES)
async def test_every_plain_name_keeps_its_own_content_and_type(files, root, name):
    await files.put(named(name="a"), "image/png", pieces(b"a"), limit=100)
    await files.put(named(name=name), "text/plain", pieces(b"mine"), limit=100)

    stored = await files.open(named(name=name))

    assert (stored.path.read_bytes(), stored.content_type) == (b"mine", "text/plain")
    assert (await files.open(named(name="a"))).path.read_bytes() == b"a"
    assert stored.path.parent == root / "job-1" / TOKEN


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("out.png", 'inline; filename="out.png"'),
        ("my picture.png", 'inline; filename="my picture.png"'),
        ("bild_ä.png", "inline; filename=\"bild__.png\"; filename*=UTF-8''bild_%C3%A4.png"),
        ('a";b.png', "inline; filename=\"a_;b.png\"; filename*=UTF-8''a%22%3Bb.png"),
        ("100%.png", "inline; filename=\"100_.png\"; filename*=UTF-8''100%25.png"),
    ],
)
def test_the_name_of_a_download_is_what_the_worker_chose(name, expected):
    assert content_disposition("inline", name) == expected


@pytest.mark.parametrize("job_id", ["", "..", "a/b", "a.b", "a\n", "a" * 129])
def test_job_ids_are_checked(job_id):
    with pytest.raises(BadRequest, match="job"):
        named(job_id=job_id)


@pytest.mark.parametrize("token", ["", "short", "t" * 21, "t" * 22 + "/", "../" * 10, "t" * 129])
def test_tokens_are_checked(token):
    with pytest.raises(BadRequest, match="token"):
        named(token=token)


@pytest.mark.parametrize("kind", ["", "png", "image/png\r\nX: y", "text/html; x=<script>", "a" * 300 + "/b"])
async def test_type_that_is_no_type_becomes_plain_bytes(files, kind):
    await files.put(named(), kind, pieces(b"x"), limit=9)

    assert (await files.open(named())).content_type == DEFAULT_TYPE


async def test_sweep_removes_old_files_and_empty_folders(files, root):
    await files.put(named("old.png"), "image/png", pieces(b"x"), limit=9)
    await files.put(named("new.png"), "image/png", pieces(b"x"), limit=9)
    await files.put(named(job_id="job-2"), "image/png", pieces(b"x"), limit=9)
    for path in [*root.rglob("*old.png*"), *(root / "job-2" / TOKEN).iterdir()]:
        os.utime(path, (1000, 1000))

    await files.sweep(2000.0)

    assert await files.open(named("old.png")) is None
    assert (await files.open(named("new.png"))).content_type == "image/png"
    assert [path.name for path in root.iterdir()] == ["job-1"]


async def test_sweep_of_nothing(files, root):
    await files.sweep(1e12)

    assert not root.exists()


async def test_sweep_takes_what_a_crash_left_behind(files, root):
    await files.put(named(), "image/png", pieces(b"x"), limit=9)
    (root / "job-1" / TOKEN / ".out.png.0123.part").write_bytes(b"half")

    await files.sweep(1e12)

    assert list(root.iterdir()) == []


async def test_folder_that_cannot_be_written_is_said_to_be_unavailable(tmp_path):
    (tmp_path / "files").write_text("a file where the folder should be")

    with pytest.raises(StoreUnavailable, match=r"out\.png"):
        await FolderFiles(tmp_path / "files").put(named(), "image/png", pieces(b"x"), limit=9)


def test_served_files_are_never_pages():
    assert SERVE_HEADERS["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in SERVE_HEADERS["Content-Security-Policy"]


async def test_a_file_that_cannot_be_deleted_does_not_keep_the_others(files, root, caplog):
    await files.put(named("a.png"), "image/png", pieces(b"1"), limit=100)
    await files.put(named("b.png", job_id="job-2"), "image/png", pieces(b"2"), limit=100)
    real = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path.name == "a.png":
            raise PermissionError(13, "Permission denied", str(path))
        real(path, missing_ok)

    with pytest.MonkeyPatch.context() as patched:  # as root no file is protected
        patched.setattr(Path, "unlink", unlink)
        await files.sweep(written_before=2e10)

    assert {path.name for path in root.rglob("*.png")} == {"a.png"}
    assert "file.kept" in [record.message for record in caplog.records]
