"""Accounts, endpoints and keys: changed through a file, read by a service with a connection of its own."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from runpod_worker.core.errors import StoreUnavailable
from runpod_worker.service.journal.database import connect
from runpod_worker.service.keys import MAX_REMEMBERED, REFRESH_S, KeyFile, Keys


class Clock:
    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.sqlite"


@pytest.fixture
def file(path: Path) -> Iterator[KeyFile]:
    with closing(KeyFile(path)) as file:
        yield file


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(file: KeyFile, path: Path, clock: Clock) -> Iterator[Keys]:
    with closing(Keys(path, clock=clock)) as keys:
        yield keys


def test_new_file_knows_no_key_and_no_endpoint(keys: Keys) -> None:
    assert not keys.has_keys()
    assert keys.account_of_key("a key") is None
    assert keys.account_of_endpoint("ep") is None


def test_key_belongs_to_its_account_and_so_do_endpoints(file: KeyFile, keys: Keys) -> None:
    ann, bob = file.ensure_account("ann"), file.ensure_account("bob")
    file.add_key(ann, "key of ann", "laptop")
    file.add_key(bob, "key of bob")
    file.add_endpoint(ann, "ep")

    assert keys.has_keys()
    assert keys.account_of_key("key of ann") == ann.id
    assert keys.account_of_key("key of bob") == bob.id
    assert keys.account_of_key("key of ann ") is None
    assert keys.account_of_endpoint("ep") == ann.id
    assert [
        (account.name, endpoints, [key.label for key in infos]) for account, endpoints, infos in file.accounts()
    ] == [
        ("ann", ["ep"], ["laptop"]),
        ("bob", [], [""]),
    ]


def test_key_differs_from_another_that_shares_the_first_bytes_of_its_digest(
    file: KeyFile, keys: Keys, path: Path
) -> None:
    ann = file.ensure_account("ann")
    file.add_key(ann, "key of ann")
    with closing(connect(path)) as raw:
        raw.execute("UPDATE keys SET digest = CAST(substr(digest, 1, 8) || zeroblob(24) AS BLOB)")

    assert keys.account_of_key("key of ann") is None


def test_change_by_another_process_shows_after_the_refresh_time_and_not_before(
    file: KeyFile, keys: Keys, clock: Clock
) -> None:
    ann = file.ensure_account("ann")
    assert keys.account_of_key("key") is None

    file.add_key(ann, "key")
    clock.time += REFRESH_S * 0.99
    assert keys.account_of_key("key") is None
    clock.time += REFRESH_S * 0.01
    assert keys.account_of_key("key") == ann.id
    assert keys.has_keys()

    [(_, _, [info])] = file.accounts()
    assert file.revoke(info.fingerprint) == 1
    assert file.revoke(info.fingerprint) == 0
    clock.time += REFRESH_S
    assert keys.account_of_key("key") is None
    assert not keys.has_keys()


def test_unchanged_file_is_not_read_again(keys: Keys, clock: Clock) -> None:
    statements: list[str] = []
    keys.account_of_key("key")
    keys._connection.set_trace_callback(statements.append)

    for _ in range(3):
        clock.time += REFRESH_S
        keys.account_of_key("key")
        keys.account_of_key("key")

    assert statements == ["PRAGMA data_version"] * 3


def test_made_up_keys_take_no_memory(keys: Keys) -> None:
    for number in range(MAX_REMEMBERED + 10):
        keys.account_of_key(f"made up {number}")

    assert keys._remembered.cache_info().currsize == MAX_REMEMBERED


def test_endpoint_has_one_account(file: KeyFile, keys: Keys) -> None:
    ann, bob = file.ensure_account("ann"), file.ensure_account("bob")
    file.add_endpoint(ann, "ep")
    file.add_endpoint(ann, "ep")

    with pytest.raises(ValueError, match="'ep' belongs to an account already"):
        file.add_endpoint(bob, "ep")

    assert keys.account_of_endpoint("ep") == ann.id


def test_account_of_a_name_is_made_once(file: KeyFile) -> None:
    assert file.ensure_account("ann") == file.ensure_account("ann")
    with pytest.raises(ValueError, match="name"):
        file.ensure_account("")


def test_key_that_exists_keeps_its_account(file: KeyFile, keys: Keys) -> None:
    ann = file.ensure_account("ann")
    file.add_key(ann, "key", "laptop")
    file.add_key(file.ensure_account("bob"), "key", "again")

    assert keys.account_of_key("key") == ann.id


def test_keys_survive_reopening(file: KeyFile, path: Path) -> None:
    ann = file.ensure_account("ann")
    file.add_key(ann, "key")
    file.close()

    with closing(Keys(path)) as keys:
        assert keys.account_of_key("key") == ann.id


def test_file_that_cannot_be_read_refuses_instead_of_letting_everyone_in(keys: Keys, clock: Clock, path: Path) -> None:
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("DROP TABLE keys")
    clock.time += REFRESH_S

    with pytest.raises(StoreUnavailable, match=r"jobs\.sqlite cannot be read"):
        keys.has_keys()


def test_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "jobs.sqlite").write_bytes(b"not a database" * 100)

    with pytest.raises(StoreUnavailable, match="cannot be opened"):
        KeyFile(tmp_path / "jobs.sqlite")
