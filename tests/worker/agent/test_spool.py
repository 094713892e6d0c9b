"""Reports on disk: complete or absent, private, bounded, and never sent by two processes."""

import os
import resource
import shutil
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from runpod_worker.core.errors import SpoolFull
from runpod_worker.worker.agent.spool import FileName, Spool, SpooledReport

OUTCOME = SpooledReport(job_id="a", attempt=2, worker_id="w 1", is_stream=True, body=b'{"output":"\xc3\xa9\n\n"}')
FILE = SpooledReport(job_id="a", attempt=2, body=b"\x89PNG\n\x00", file=FileName("t", "a n.png", "image/png"))


def spool(directory: Path, *, endpoint: str = "http://x/v2/ep", max_bytes: int = 10_000) -> Spool:
    return Spool(directory, endpoint=endpoint, max_bytes=max_bytes)


def test_reports_of_an_ended_process_are_adopted_in_their_order(tmp_path: Path) -> None:
    first = spool(tmp_path)
    for report in (FILE, OUTCOME, OUTCOME):
        first.write(report)
    first.close()

    second = spool(tmp_path)

    assert [second.read(path) for path in second.adopt()] == [FILE, OUTCOME, OUTCOME]


def test_a_living_process_keeps_its_reports(tmp_path: Path) -> None:
    first, second = spool(tmp_path), spool(tmp_path)
    first.write(OUTCOME)

    assert second.adopt() == []
    assert first.adopt() == []


def test_one_successor_adopts_the_reports_of_a_killed_process(tmp_path: Path) -> None:
    source = (
        "import os, sys, signal; from pathlib import Path\n"
        "from runpod_worker.worker.agent.spool import Spool, SpooledReport\n"
        "spool = Spool(Path(sys.argv[1]), endpoint='http://x/v2/ep', max_bytes=10000)\n"
        "spool.write(SpooledReport(job_id='a', attempt=None, body=b'1'))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", source, str(tmp_path)], check=False, timeout=60)
    second, third = spool(tmp_path), spool(tmp_path)

    assert len(second.adopt()) == 1
    assert third.adopt() == []


def test_only_the_owner_may_read(tmp_path: Path) -> None:
    path = spool(tmp_path).write(OUTCOME)

    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_reports_of_another_endpoint_are_not_adopted(tmp_path: Path) -> None:
    first = spool(tmp_path)
    first.write(OUTCOME)
    first.close()

    assert spool(tmp_path, endpoint="http://x/v2/other").adopt() == []


def test_the_bound_holds_for_all_processes_together(tmp_path: Path) -> None:
    first, second = spool(tmp_path, max_bytes=1000), spool(tmp_path, max_bytes=1000)
    big = SpooledReport(job_id="a", attempt=None, body=b"x" * 600)
    path = first.write(big)

    with pytest.raises(SpoolFull):
        second.write(big)
    first.remove(path)
    second.write(big)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: data[:-2] + b"!!",
        lambda data: b"{}\n" + data,
        lambda data: b"\xff" * 100,
    ],
)
def test_a_corrupt_report_is_renamed_and_the_others_are_read(tmp_path: Path, damage: object) -> None:
    first = spool(tmp_path)
    broken, whole = first.write(OUTCOME), first.write(OUTCOME)
    broken.write_bytes(damage(broken.read_bytes()))  # type: ignore[operator]
    first.close()

    second = spool(tmp_path)

    assert [second.read(path) for path in second.adopt()] == [None, OUTCOME]
    assert second.read(whole) == OUTCOME
    second.close()
    assert [path.suffix for path in tmp_path.rglob("*.corrupt")] == [".corrupt"]


def test_a_half_written_report_is_not_adopted(tmp_path: Path) -> None:
    first = spool(tmp_path)
    path = first.write(OUTCOME)
    path.rename(path.with_suffix(".partial"))
    first.close()

    assert spool(tmp_path).adopt() == []


def test_no_file_stays_when_everything_was_delivered(tmp_path: Path) -> None:
    first = spool(tmp_path)
    first.remove(first.write(OUTCOME))
    first.close()

    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    [scope] = tmp_path.iterdir()
    assert list(scope.iterdir()) == []


def test_a_spool_that_is_not_needed_touches_nothing(tmp_path: Path) -> None:
    unused = spool(tmp_path / "deep" / "spool")

    assert unused.adopt() == []
    unused.close()

    assert list(tmp_path.iterdir()) == []


def remove_in_listing(monkeypatch: pytest.MonkeyPatch, removed: Path, *, before_use: bool) -> None:
    """Remove this path while its folder is listed, as another process may: before or after the caller uses it."""
    iterdir = Path.iterdir

    def listed(folder: Path) -> Iterator[Path]:
        for path in list(iterdir(folder)):
            if path == removed and before_use:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            yield path
            if path == removed and path.exists():
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    monkeypatch.setattr(Path, "iterdir", listed)


@pytest.mark.parametrize("before_use", [False, True])
def test_a_folder_that_vanishes_is_not_adopted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before_use: bool
) -> None:
    first, other = spool(tmp_path), spool(tmp_path)
    first.write(OUTCOME)
    removed = other.write(OUTCOME).parent
    first.close()
    other.close()
    remove_in_listing(monkeypatch, removed, before_use=before_use)

    second = spool(tmp_path)

    assert [second.read(path) for path in second.adopt()] == [OUTCOME]


@pytest.mark.parametrize("before_use", [False, True])
def test_a_report_that_vanishes_fails_no_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before_use: bool
) -> None:
    first = spool(tmp_path)
    remove_in_listing(monkeypatch, first.write(OUTCOME), before_use=before_use)

    assert first.read(first.write(FILE)) == FILE


def test_a_folder_that_cannot_be_created_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(OSError, match="file"):
        spool(tmp_path / "file").write(OUTCOME)


def test_a_report_that_does_not_fit_on_the_disk_leaves_nothing(tmp_path: Path) -> None:
    source = (
        "import resource, sys; from pathlib import Path\n"
        "from runpod_worker.worker.agent.spool import Spool, SpooledReport\n"
        "spool = Spool(Path(sys.argv[1]), endpoint='e', max_bytes=10_000)\n"
        "small, large = (SpooledReport(job_id='a', attempt=1, body=b'x' * size) for size in (1, 4000))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "for number in range(5):\n"
        "    try: spool.write(large)\n"
        "    except OSError as error: print(type(error).__name__, error.errno)\n"
        "spool.write(small)\n"
    )
    command = [sys.executable, "-c", source, str(tmp_path)]
    done = subprocess.run(command, check=True, timeout=60, capture_output=True, text=True)

    assert done.stdout.count("OSError") == 5
    assert [path.suffix for path in tmp_path.rglob("*") if path.is_file()] == [".outcome"]


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path) -> None:
    first = spool(tmp_path)
    path = first.write(OUTCOME)
    path.rename(path.with_suffix(".partial"))
    first.close()

    second = spool(tmp_path)
    assert second.adopt() == []
    second.close()

    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_spool_that_cannot_be_listed_or_changed_raises_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    unusable = spool(tmp_path / "file")

    assert unusable.adopt() == []
    unusable.remove(tmp_path / "file" / "x")
    assert unusable.read(tmp_path / "file" / "x") is None
    assert unusable.age_s(tmp_path / "file" / "x") == float("inf")
    unusable.close()


def test_a_report_that_cannot_be_read_now_is_not_called_corrupt(tmp_path: Path) -> None:
    first = spool(tmp_path)
    path = first.write(OUTCOME)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        assert first.read(path) is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    assert first.read(path) == OUTCOME


def test_the_lock_ends_with_the_process(tmp_path: Path) -> None:
    first = spool(tmp_path)
    first.write(OUTCOME)
    assert not [path for path in tmp_path.rglob("*") if "lock" in path.name]
    for handle in first._locked:
        os.close(handle)
    first._locked.clear()

    assert len(spool(tmp_path).adopt()) == 1


# ---------------------------------------------------------------- files of version 0.1


def old_file(directory: Path, head: str, body: bytes) -> Path:
    first = spool(directory)
    path = first.write(OUTCOME)
    size, crc32 = len(body), zlib.crc32(body)
    path.write_bytes(head.encode() % (size, crc32) + b"\n" + body)
    first.close()
    return path


def test_an_outcome_that_version_0_1_spooled_is_read(tmp_path: Path) -> None:
    url = "https://api.runpod.ai/v2/ep/job-done/pod%201/a?gpu=cpu&isStream=true"
    head = f'{{"target":"{url}","job_id":"a","attempt":3,"content_type":null,"size":%d,"crc32":%d}}'
    path = old_file(tmp_path, head.replace("pod%201", "pod%%201"), b'{"output":1}')

    report = spool(tmp_path).read(path)

    assert report == SpooledReport(job_id="a", attempt=3, worker_id="pod 1", is_stream=True, body=b'{"output":1}')


def test_a_file_that_version_0_1_spooled_is_read(tmp_path: Path) -> None:
    url = "http://x/v2/ep/files/a/tok/my%%20pic.png"
    head = f'{{"target":"{url}","job_id":"a","attempt":3,"content_type":"image/png","size":%d,"crc32":%d}}'
    path = old_file(tmp_path, head, b"PNG")

    report = spool(tmp_path).read(path)

    assert report == SpooledReport(job_id="a", attempt=3, body=b"PNG", file=FileName("tok", "my pic.png", "image/png"))
