"""The key store on the same file as the jobs: all keys are in memory, SQLite remembers them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from runpod_worker.service.journal.database import Batch, Value
from runpod_worker.service.journal.port import Account
from runpod_worker.service.journal.writer import Log, Write
from runpod_worker.service.keyring import read_keyring

_CHAIN = "\0keys"
"""The key of every write here; no job has such an id."""


class SqliteKeyStore:
    """`KeyStore` on the writer of a `SqliteStore`."""

    def __init__(self, log: Log[Batch], connection: sqlite3.Connection) -> None:
        self._log = log
        self._connection = connection
        self._ring = read_keyring(connection)

    def reload(self) -> None:
        """Read the keys anew: another process has changed them."""
        self._ring = read_keyring(self._connection)

    async def add_account(self, name: str) -> Account:
        account = self._ring.new_account(name)
        self._ring.put_account(account)
        await self._write(
            lambda: self._ring.drop_account(account.id), "INSERT INTO accounts VALUES (?, ?)", account.id, account.name
        )
        return account

    async def add_endpoint(self, account_id: str, endpoint: str) -> None:
        self._ring.check_endpoint(account_id, endpoint)
        self._ring.put_endpoint(account_id, endpoint)
        await self._write(
            lambda: self._ring.drop_endpoint(endpoint), "INSERT INTO owners VALUES (?, ?)", endpoint, account_id
        )

    async def add_key(self, account_id: str, digest: bytes, label: str) -> None:
        self._ring.check_key(account_id, digest)
        self._ring.put_key(account_id, digest)
        await self._write(
            lambda: self._ring.drop_key(digest), "INSERT INTO keys VALUES (?, ?, ?)", digest, account_id, label
        )

    async def revoke_key(self, digest: bytes) -> bool:
        account_id = self._ring.account_of(digest)
        if account_id is None:
            return False
        self._ring.drop_key(digest)
        await self._write(lambda: self._ring.put_key(account_id, digest), "DELETE FROM keys WHERE digest = ?", digest)
        return True

    async def accounts(self) -> list[Account]:
        return self._ring.accounts()

    def owner(self, endpoint: str) -> str | None:
        return self._ring.owner(endpoint)

    def account_of(self, digest: bytes) -> str | None:
        return self._ring.account_of(digest)

    def has_keys(self) -> bool:
        return self._ring.has_keys()

    async def _write(self, undo: Callable[[], object], statement: str, *values: Value) -> None:
        # One chain for all keys: what was decided on top of a write that failed is undone with it.
        await self._log.write(Write(_CHAIN, lambda batch: batch.statements.append((statement, values)), undo=undo))
