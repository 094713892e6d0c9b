"""Accounts, endpoints and keys in memory, and the few rules about them that every key store shares."""

from __future__ import annotations

import hmac
import uuid
from typing import TYPE_CHECKING

from runpod_worker.service.journal.port import Account

if TYPE_CHECKING:
    import sqlite3

DIGEST_BYTES = 32


class KeyRing:
    """What a key store knows. The `check_*` methods refuse, the `put_*` methods only remember."""

    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}
        self._owners: dict[str, str] = {}
        self._keys: dict[bytes, dict[bytes, str]] = {}

    def new_account(self, name: str) -> Account:
        """An account with a fresh id; ValueError if the name is taken."""
        if not name:
            raise ValueError("name: an account needs a name that is not empty")
        if any(account.name == name for account in self._accounts.values()):
            raise ValueError(f"name: there is an account {name!r} already")
        return Account(id=uuid.uuid4().hex, name=name)

    def check_endpoint(self, account_id: str, endpoint: str) -> None:
        """ValueError unless the account exists and the endpoint is free."""
        self._check_account(account_id)
        if endpoint in self._owners:
            raise ValueError(f"endpoint: {endpoint!r} belongs to an account already")

    def check_key(self, account_id: str, digest: bytes) -> None:
        """ValueError unless the account exists and the digest is a new SHA-256."""
        self._check_account(account_id)
        if len(digest) != DIGEST_BYTES:
            raise ValueError(f"digest: a SHA-256 digest has {DIGEST_BYTES} bytes, this one {len(digest)}")
        if self.account_of(digest) is not None:
            raise ValueError("digest: this key exists already")

    def put_account(self, account: Account) -> None:
        """Remember an account."""
        self._accounts[account.id] = account

    def put_endpoint(self, account_id: str, endpoint: str) -> None:
        """Remember whose endpoint it is."""
        self._owners[endpoint] = account_id

    def put_key(self, account_id: str, digest: bytes) -> None:
        """Remember whose key it is."""
        self._keys.setdefault(digest[:8], {})[digest] = account_id

    def drop_account(self, account_id: str) -> None:
        """Forget an account."""
        del self._accounts[account_id]

    def drop_endpoint(self, endpoint: str) -> None:
        """Forget whose endpoint it is."""
        del self._owners[endpoint]

    def drop_key(self, digest: bytes) -> bool:
        """Forget the key. False: there was none."""
        shelf = self._keys.get(digest[:8], {})
        known = shelf.pop(digest, None) is not None
        if known and not shelf:
            del self._keys[digest[:8]]
        return known

    def accounts(self) -> list[Account]:
        return list(self._accounts.values())

    def owner(self, endpoint: str) -> str | None:
        return self._owners.get(endpoint)

    def account_of(self, digest: bytes) -> str | None:
        """The account the key belongs to. The shelf is found by a prefix of the hash; what is on it is compared in
        constant time."""
        found = None
        for known, account_id in self._keys.get(digest[:8], {}).items():
            if hmac.compare_digest(known, digest):
                found = account_id
        return found

    def has_keys(self) -> bool:
        return bool(self._keys)

    def _check_account(self, account_id: str) -> None:
        if account_id not in self._accounts:
            raise ValueError(f"account_id: there is no account {account_id!r}")


def read_keyring(connection: sqlite3.Connection) -> KeyRing:
    """What the tables of a store file say."""
    ring = KeyRing()
    for account_id, name in connection.execute("SELECT id, name FROM accounts"):
        ring.put_account(Account(id=account_id, name=name))
    for endpoint, account_id in connection.execute("SELECT endpoint, account FROM owners"):
        ring.put_endpoint(account_id, endpoint)
    for digest, account_id in connection.execute("SELECT digest, account FROM keys"):
        ring.put_key(account_id, digest)
    return ring
