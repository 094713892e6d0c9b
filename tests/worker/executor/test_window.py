import asyncio
import threading

from runpod_worker.worker.executor.window import CEILING, FLOOR, TOTAL, Account, Bank


def test_a_job_waits_above_its_ceiling_and_goes_on_when_its_own_bytes_have_left():
    bank = Bank()
    account = bank.open("a")
    account.chunk(CEILING)
    assert account.has_room
    account.chunk(1)
    assert not account.has_room

    waited = threading.Thread(target=account.wait)
    waited.start()
    bank.pay("other", CEILING)
    assert not account.has_room
    bank.pay("a", 1)
    waited.join(30)

    assert not waited.is_alive()


def test_a_job_that_owes_little_never_waits_for_the_others():
    bank = Bank()
    large = [bank.open(str(n)) for n in range(2 * TOTAL // CEILING)]
    for account in large:
        account.chunk(CEILING)
    small = bank.open("small")
    small.chunk(FLOOR)

    assert bank.owed > TOTAL
    assert small.has_room
    assert not any(account.has_room for account in large)


def test_what_a_job_owed_that_is_gone_counts_no_more():
    bank = Bank()
    gone, left = [bank.open(str(n)) for n in range(8)], bank.open("left")
    for account in [*gone, left]:
        account.chunk(CEILING)
    assert not left.has_room

    del gone, account

    assert left.has_room


async def test_a_stop_ends_every_wait():
    bank = Bank()
    account = bank.open("a")
    account.file(CEILING + 1)
    task = asyncio.ensure_future(account.wait_on_loop())
    thread = threading.Thread(target=account.wait)
    thread.start()
    await asyncio.sleep(0)
    assert not task.done()

    await asyncio.to_thread(account.close)

    await asyncio.wait_for(task, 30)
    await asyncio.to_thread(thread.join, 30)
    assert not thread.is_alive()


def test_where_nobody_gives_credit_nothing_waits():
    account = Account()
    account.chunk(100 * TOTAL)

    account.wait()
