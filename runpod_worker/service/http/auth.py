"""Who may speak to an endpoint: keys belong to accounts, endpoints belong to accounts, and both must be the same."""

from __future__ import annotations

import hashlib

from runpod_worker.core.errors import EndpointNotFound, Unauthorized
from runpod_worker.service.journal.port import KeyStore


def digest(key: str) -> bytes:
    """The form in which a key is kept."""
    return hashlib.sha256(key.encode()).digest()


def check(keys: KeyStore, authorization: str | None, endpoint: str, *, locked: bool) -> None:
    """Let a request to `endpoint` pass. Without any key in the store everybody may, unless the service is `locked`:
    it is where others than this machine reach it.

    Raises:
        Unauthorized: no key, an unknown key, or the key of another account.
        EndpointNotFound: the endpoint belongs to nobody.
    """
    if not locked and not keys.has_keys():
        return
    key = _bare(authorization)
    if not key:
        raise Unauthorized
    account = keys.account_of(digest(key))
    if account is None:
        raise Unauthorized("invalid api key")
    owner = keys.owner(endpoint)
    if owner is None:
        raise EndpointNotFound
    if owner != account:
        raise Unauthorized("invalid api key")


def _bare(authorization: str | None) -> str:
    """The key, with or without the word Bearer before it: both are documented (protocol A.1)."""
    words = (authorization or "").split()
    if len(words) > 1 and words[0].lower() == "bearer":
        del words[0]
    return words[0] if len(words) == 1 else ""
