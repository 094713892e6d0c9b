"""What every key store promises."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runpod_worker.service.journal.memory import MemoryKeyStore
from runpod_worker.service.journal.port import KeyStore
from runpod_worker.service.journal.sqlite import SqliteStore

DIGEST = hashlib.sha256(b"a key").digest()


@pytest.fixture(params=["memory", "sqlite"])
async def keys(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[KeyStore]:
    if request.param == "memory":
        yield MemoryKeyStore()
        return
    store = SqliteStore(tmp_path / "jobs.db")
    yield store.keys
    await store.close()


async def test_new_store_knows_nobody(keys):
    assert not keys.has_keys()
    assert keys.account_of(DIGEST) is None
    assert keys.owner("ep") is None
    assert await keys.accounts() == []


async def test_key_opens_its_account(keys):
    ann, bob = await keys.add_account("ann"), await keys.add_account("bob")
    await keys.add_key(ann.id, DIGEST, "laptop")
    await keys.add_key(bob.id, hashlib.sha256(b"other").digest(), "ci")

    assert keys.has_keys()
    assert keys.account_of(DIGEST) == ann.id
    assert keys.account_of(DIGEST[:-1] + b"\x00") is None
    assert {account.name for account in await keys.accounts()} == {"ann", "bob"}


async def test_revoked_key_opens_nothing(keys):
    ann = await keys.add_account("ann")
    await keys.add_key(ann.id, DIGEST, "laptop")

    assert await keys.revoke_key(DIGEST) is True
    assert await keys.revoke_key(DIGEST) is False

    assert keys.account_of(DIGEST) is None
    assert not keys.has_keys()


async def test_endpoint_has_one_owner(keys):
    ann, bob = await keys.add_account("ann"), await keys.add_account("bob")
    await keys.add_endpoint(ann.id, "ep")

    with pytest.raises(ValueError, match="'ep' belongs to an account already"):
        await keys.add_endpoint(bob.id, "ep")

    assert keys.owner("ep") == ann.id


async def test_account_name_is_given_once(keys):
    await keys.add_account("ann")

    with pytest.raises(ValueError, match="'ann'"):
        await keys.add_account("ann")
    with pytest.raises(ValueError, match="name"):
        await keys.add_account("")


async def test_what_belongs_to_nobody_is_refused(keys):
    with pytest.raises(ValueError, match="account_id"):
        await keys.add_key("nobody", DIGEST, "x")
    with pytest.raises(ValueError, match="account_id"):
        await keys.add_endpoint("nobody", "ep")


async def test_only_new_digests_of_the_right_length_are_keys(keys):
    ann = await keys.add_account("ann")
    await keys.add_key(ann.id, DIGEST, "laptop")

    with pytest.raises(ValueError, match="exists already"):
        await keys.add_key(ann.id, DIGEST, "again")
    with pytest.raises(ValueError, match="32 bytes, this one 3"):
        await keys.add_key(ann.id, b"abc", "short")
