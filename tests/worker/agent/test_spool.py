"""Outcomes on disk: complete or not there, private, bounded, and never sent by two processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runpod_worker.core.errors import SpoolFull
from runpod_worker.worker.agent.spool import Entry, Spool

ENTRY = Entry(target="http://x/job-done/w/a?isStream=true", job_id="a", attempt=2, body=b'{"output":"\xc3\xa9\n\n"}')
FILE = Entry(target="http://x/files/a/t/n", job_id="a", attempt=2, body=b"\x89PNG\n\x00", content_type="image/png")


def spool(directory: Path, *, endpoint: str = "http://x/v2/ep", most_bytes: int = 10_000) -> Spool:
    return Spool(directory, endpoint=endpoint, most_bytes=most_bytes)


def test_entries_of_a_process_that_is_gone_are_found_in_their_order(tmp_path: Path) -> None:
    first = spool(tmp_path)
    for entry in (FILE, ENTRY, ENTRY):
        first.write(entry)
    first.close()

    second = spool(tmp_path)

    assert [second.read(path) for path in second.adopt()] == [FILE, ENTRY, ENTRY]


def test_a_process_that_lives_keeps_its_entries_to_itself(tmp_path: Path) -> None:
    first, second = spool(tmp_path), spool(tmp_path)
    first.write(ENTRY)

    assert second.adopt() == []
    assert first.adopt() == []


def test_the_entries_of_a_killed_process_are_adopted_by_one_of_its_successors(tmp_path: Path) -> None:
    source = (
        "import os, sys, signal; from pathlib import Path; from runpod_worker.worker.agent.spool import Entry, Spool\n"
        "spool = Spool(Path(sys.argv[1]), endpoint='http://x/v2/ep', most_bytes=10000)\n"
        "spool.write(Entry(target='t', job_id='a', attempt=None, body=b'1'))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", source, str(tmp_path)], check=False, timeout=60)
    second, third = spool(tmp_path), spool(tmp_path)

    assert len(second.adopt()) == 1
    assert third.adopt() == []


def test_only_the_owner_may_read(tmp_path: Path) -> None:
    path = spool(tmp_path).write(ENTRY)

    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_another_endpoints_entries_are_left_alone(tmp_path: Path) -> None:
    first = spool(tmp_path)
    first.write(ENTRY)
    first.close()

    assert spool(tmp_path, endpoint="http://x/v2/other").adopt() == []


def test_the_bound_holds_for_all_processes_together(tmp_path: Path) -> None:
    first, second = spool(tmp_path, most_bytes=1000), spool(tmp_path, most_bytes=1000)
    big = Entry(target="t", job_id="a", attempt=None, body=b"x" * 600)
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
def test_a_corrupt_entry_is_put_aside_and_costs_the_others_nothing(tmp_path: Path, damage: object) -> None:
    first = spool(tmp_path)
    broken, whole = first.write(ENTRY), first.write(ENTRY)
    broken.write_bytes(damage(broken.read_bytes()))  # type: ignore[operator]
    first.close()

    second = spool(tmp_path)

    assert [second.read(path) for path in second.adopt()] == [None, ENTRY]
    assert second.read(whole) == ENTRY
    second.close()
    assert [path.suffix for path in tmp_path.rglob("*.corrupt")] == [".corrupt"]


def test_a_half_written_entry_is_not_an_entry(tmp_path: Path) -> None:
    first = spool(tmp_path)
    path = first.write(ENTRY)
    path.rename(path.with_suffix(".partial"))
    first.close()

    assert spool(tmp_path).adopt() == []


def test_nothing_is_left_behind_when_everything_was_delivered(tmp_path: Path) -> None:
    first = spool(tmp_path)
    first.remove(first.write(ENTRY))
    first.close()

    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    [scope] = tmp_path.iterdir()
    assert list(scope.iterdir()) == []


def test_a_spool_that_is_not_needed_touches_nothing(tmp_path: Path) -> None:
    unused = spool(tmp_path / "deep" / "spool")

    assert unused.adopt() == []
    unused.close()

    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(OSError, match="file"):
        spool(tmp_path / "file").write(ENTRY)


def test_the_lock_goes_with_the_process_not_with_a_file(tmp_path: Path) -> None:
    first = spool(tmp_path)
    first.write(ENTRY)
    assert not [path for path in tmp_path.rglob("*") if "lock" in path.name]
    for handle in first._locked:
        os.close(handle)
    first._locked.clear()

    assert len(spool(tmp_path).adopt()) == 1
