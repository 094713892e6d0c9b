"""Accounts, endpoints and keys of a store file, edited by another process than the service that uses it.

The running service is told by SIGHUP and reads its keys anew.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runpod_worker.core.errors import StoreUnavailable
from runpod_worker.service.journal.database import connect, prepare
from runpod_worker.service.journal.port import Account
from runpod_worker.service.keyring import KeyRing, read_keyring

BUSY_MS = 10_000


class KeyFile:
    """The keys in the store file at `path`. Every change is on disk when the method returns."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        try:
            self._connection = connect(path)
            self._connection.execute(f"PRAGMA busy_timeout={BUSY_MS}")
            prepare(self._connection, path)
        except sqlite3.Error as exc:
            raise StoreUnavailable(f"{path} cannot be opened as a job store: {exc}") from exc

    def account(self, name: str) -> Account:
        """The account of that name, created if there is none."""
        with self._writing() as ring:
            for account in ring.accounts():
                if account.name == name:
                    return account
            account = ring.new_account(name)
            self._connection.execute("INSERT INTO accounts VALUES (?, ?)", (account.id, account.name))
            return account

    def give_endpoint(self, account: Account, endpoint: str) -> None:
        """Make the endpoint the account's; nothing if it is already.

        Raises:
            ValueError: it belongs to another account.
        """
        with self._writing() as ring:
            if ring.owner(endpoint) == account.id:
                return
            ring.check_endpoint(account.id, endpoint)
            self._connection.execute("INSERT INTO owners VALUES (?, ?)", (endpoint, account.id))

    def add_key(self, account: Account, digest: bytes, label: str) -> None:
        """Keep a key of the account."""
        with self._writing() as ring:
            ring.check_key(account.id, digest)
            self._connection.execute("INSERT INTO keys VALUES (?, ?, ?)", (digest, account.id, label))

    def revoke(self, fingerprint: str) -> int:
        """Forget the keys whose digest begins with these hexadecimal digits; returns how many there were."""
        with self._writing():
            rows = self._connection.execute("SELECT digest FROM keys").fetchall()
            gone = [(digest,) for (digest,) in rows if digest.hex().startswith(fingerprint)]
            self._connection.executemany("DELETE FROM keys WHERE digest = ?", gone)
            return len(gone)

    def listing(self) -> Iterator[tuple[Account, list[str], list[tuple[str, str]]]]:
        """Each account with its endpoints and its keys (fingerprint, label)."""
        read = self._connection.execute
        for account_id, name in read("SELECT id, name FROM accounts ORDER BY name").fetchall():
            mine = (account_id,)
            endpoints = [row[0] for row in read("SELECT endpoint FROM owners WHERE account = ? ORDER BY 1", mine)]
            keys = [
                (row[0].hex()[:12], row[1]) for row in read("SELECT digest, label FROM keys WHERE account = ?", mine)
            ]
            yield Account(id=account_id, name=name), endpoints, keys

    def tell_service(self) -> int | None:
        """Make the service that uses the file read its keys anew. Returns its process id, None when none runs."""
        try:
            held = self._path.with_name(self._path.name + ".lock").open("r+")
        except FileNotFoundError:
            return None
        with held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pid = int(held.read().strip() or 0)
                os.kill(pid, signal.SIGHUP)
                return pid
        return None

    def close(self) -> None:
        """Release the file."""
        self._connection.close()

    @contextmanager
    def _writing(self) -> Iterator[KeyRing]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield read_keyring(self._connection)
            self._connection.execute("COMMIT")
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
