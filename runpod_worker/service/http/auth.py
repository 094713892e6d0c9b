"""Checks keys: keys and endpoints belong to accounts, and a key is valid for the endpoints of its account."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runpod_worker.core.errors import EndpointNotFound, Unauthorized

if TYPE_CHECKING:
    from runpod_worker.service.keys import Keys


def check(keys: Keys | None, authorization: str | None, endpoint: str, *, locked: bool) -> None:
    """Check the key of a request to `endpoint`. Without any stored key every request passes, unless `locked`.

    A service that other machines can reach is `locked`.

    Raises:
        Unauthorized: no key, an unknown key, or the key of another account.
        EndpointNotFound: the endpoint belongs to no account.
        StoreUnavailable: the keys cannot be read.
    """
    if not locked and (keys is None or not keys.has_keys()):
        return
    key = _key_in(authorization)
    if not key:
        raise Unauthorized
    account = None if keys is None else keys.account_of_key(key)
    if keys is None or account is None:
        raise Unauthorized("invalid api key")
    endpoint_account = keys.account_of_endpoint(endpoint)
    if endpoint_account is None:
        raise EndpointNotFound
    if endpoint_account != account:
        raise Unauthorized("invalid api key")


def _key_in(authorization: str | None) -> str:
    """The key, with or without the word Bearer before it: both are documented (protocol A.1)."""
    words = (authorization or "").split()
    if len(words) > 1 and words[0].lower() == "bearer":
        del words[0]
    return words[0] if len(words) == 1 else ""
