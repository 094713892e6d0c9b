"""Accounts, and the endpoints and API keys that belong to them: three tables in the journal's SQLite file.

`KeyFile` changes them, from any process. `Keys` answers for a running service, through a connection of its own. It
remembers its answers until another connection writes to the file, and checks that at most once a second.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from runpod_worker.core.errors import StoreUnavailable
from runpod_worker.service.journal.database import connect
from runpod_worker.service.journal.schema import ENDPOINT_ACCOUNTS, prepare
from runpod_worker.service.settings import make_data_folder

DATABASE = "jobs.sqlite"
"""The name of the database in the service's data folder."""

ACCOUNT_NAME = r"(?!\s)[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,100}"
ENDPOINT_NAME = r"\w[\w.~-]{0,99}"
"""Names that may be given to accounts and endpoints. Older names stay."""

REFRESH_S = 1.0
"""A running service accepts a new key, and refuses a revoked one, at the latest after this time."""

MAX_REMEMBERED = 10_000
"""Answers that `Keys` remembers. It drops the oldest, so that requests with invented keys cannot fill the memory."""

BUSY_MS = 10_000
"""Raise StoreUnavailable when another process has been writing for this long."""

_PREFIX_BYTES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The holder of endpoints and keys."""

    id: str
    name: str


class KeyInfo(NamedTuple):
    """A key as people see it: the first digits of its digest, and its label."""

    fingerprint: str
    label: str


def digest(key: str) -> bytes:
    """The form in which a key is kept. Keys are 256 random bits and need no salt."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


class _Database:
    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._connection = connect(path)
        except (OSError, sqlite3.Error) as exc:
            raise StoreUnavailable(f"{path} cannot be opened as a job store: {exc}") from exc

    def close(self) -> None:
        self._connection.close()

    def _run(self, statement: str, *values: str | bytes) -> sqlite3.Cursor:
        try:
            return self._connection.execute(statement, values)
        except sqlite3.Error as exc:
            raise StoreUnavailable(f"the keys in {self._path} cannot be read or written: {exc}") from exc


class KeyFile(_Database):
    """Changes the keys in the database at `path`. Every change is on disk when the method returns.

    Raises:
        StoreUnavailable: the file cannot be opened, or another process keeps it locked.
    """

    def __init__(self, path: Path) -> None:
        make_data_folder(path.parent)
        super().__init__(path)
        self._run(f"PRAGMA busy_timeout={BUSY_MS}")
        try:
            prepare(self._connection, path)
        except sqlite3.Error as exc:
            raise StoreUnavailable(f"{path} cannot be prepared: {exc}") from exc

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Keep all changes that are made within, or none of them if it ends with an error."""
        self._run("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._run("ROLLBACK")
            raise
        self._run("COMMIT")

    def ensure_account(self, name: str) -> Account:
        """The account of that name, created if there is none."""
        if not re.fullmatch(ACCOUNT_NAME, name):
            raise ValueError(f"account: expected a name of 1 to 100 printable characters, got {name!r}")
        self._run("INSERT INTO accounts VALUES (?, ?) ON CONFLICT (name) DO NOTHING", uuid.uuid4().hex, name)
        [(account_id,)] = self._run("SELECT id FROM accounts WHERE name = ?", name).fetchall()
        return Account(id=account_id, name=name)

    def add_endpoint(self, account: Account, endpoint: str) -> None:
        """Assign the endpoint to the account, if it is not assigned already.

        Raises:
            ValueError: it belongs to another account, or no URL can name it.
        """
        if not re.fullmatch(ENDPOINT_NAME, endpoint):
            raise ValueError(f"endpoint: expected letters, digits, '-', '_', '.' and '~', got {endpoint!r}")
        self._run(f"INSERT INTO {ENDPOINT_ACCOUNTS} VALUES (?, ?) ON CONFLICT DO NOTHING", endpoint, account.id)  # noqa: S608
        [(holder,)] = self._run(f"SELECT account FROM {ENDPOINT_ACCOUNTS} WHERE endpoint = ?", endpoint).fetchall()  # noqa: S608
        if holder != account.id:
            raise ValueError(f"endpoint: {endpoint!r} belongs to an account already")

    def add_key(self, account: Account, key: str, label: str = "") -> None:
        """Store the digest of a key of the account, if it is not stored already."""
        self._run("INSERT INTO keys VALUES (?, ?, ?) ON CONFLICT DO NOTHING", digest(key), account.id, label)

    def revoke(self, fingerprint: str) -> int:
        """Delete the keys whose digest begins with these hexadecimal digits; returns how many there were."""
        where = "substr(lower(hex(digest)), 1, length(?)) = ?"
        return self._run(f"DELETE FROM keys WHERE {where}", fingerprint, fingerprint).rowcount  # noqa: S608

    def accounts(self) -> Iterator[tuple[Account, list[str], list[KeyInfo]]]:
        """Each account with its endpoints and its keys, by name."""
        for account_id, name in self._run("SELECT id, name FROM accounts ORDER BY name").fetchall():
            endpoints = self._run(f"SELECT endpoint FROM {ENDPOINT_ACCOUNTS} WHERE account = ? ORDER BY 1", account_id)  # noqa: S608
            keys = self._run("SELECT digest, label FROM keys WHERE account = ?", account_id)
            infos = [KeyInfo(known.hex()[:12], label) for known, label in keys]
            yield Account(id=account_id, name=name), [endpoint for (endpoint,) in endpoints], infos


class Keys(_Database):
    """Which account a key and an endpoint belong to, for the service that uses the database at `path`.

    Each method raises StoreUnavailable if the file cannot be read.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(path)
        self._clock = clock
        self._checked_at = clock()
        self._version = self._data_version()
        self._remembered = lru_cache(MAX_REMEMBERED)(self._read)

    def has_keys(self) -> bool:
        """Whether any key exists."""
        return bool(self._rows("SELECT 1 FROM keys LIMIT 1"))

    def is_locked(self) -> bool:
        """Whether a key is needed: since the first account was created, even when all its keys are revoked."""
        return bool(self._rows("SELECT 1 FROM accounts LIMIT 1"))

    def account_of_key(self, key: str) -> str | None:
        """The id of the account the key belongs to, None for an unknown key."""
        wanted = digest(key)
        # Found by its first bytes, then compared in constant time: the time reveals nothing about the other bytes.
        bounds = wanted[:_PREFIX_BYTES], wanted[:_PREFIX_BYTES] + b"\xff" * len(wanted)
        rows = self._rows("SELECT digest, account FROM keys WHERE digest BETWEEN ? AND ?", *bounds)
        return next((account for known, account in rows if hmac.compare_digest(known, wanted)), None)

    def account_of_endpoint(self, endpoint: str) -> str | None:
        """The id of the account the endpoint belongs to, None for an unknown endpoint."""
        rows = self._rows(f"SELECT account FROM {ENDPOINT_ACCOUNTS} WHERE endpoint = ?", endpoint)  # noqa: S608
        return rows[0][0] if rows else None

    def _rows(self, statement: str, *values: str | bytes) -> list[Any]:
        now = self._clock()
        if now - self._checked_at >= REFRESH_S:
            self._checked_at = now
            version = self._data_version()
            if version != self._version:
                self._version = version
                self._remembered.cache_clear()
        return self._remembered(statement, *values)

    def _data_version(self) -> int:
        """Changes when another connection has written to the file, whether keys or jobs."""
        return int(self._read("PRAGMA data_version")[0][0])

    def _read(self, statement: str, *values: str | bytes) -> list[Any]:
        return self._run(statement, *values).fetchall()
