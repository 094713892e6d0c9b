import asyncio
import threading
import time

from runpod_worker.worker.executor.window import MAX_WINDOW, MIN_WINDOW, FlowWindow, window_size


def test_slots_share_sixteen_mib_but_no_window_is_smaller_than_256_kib():
    assert window_size(1) == MAX_WINDOW
    assert window_size(4) == MAX_WINDOW // 4
    assert window_size(1000) == MIN_WINDOW


def test_a_job_waits_while_more_than_its_window_is_in_flight():
    window = FlowWindow(10)
    window.add(10)
    window.wait()
    window.add(1)
    assert not window.is_open

    thread = threading.Thread(target=window.wait)
    thread.start()
    window.ack(1)
    thread.join(30)

    assert not thread.is_alive()


def test_one_window_does_not_wait_for_another():
    full, other = FlowWindow(10), FlowWindow(10)
    full.add(11)

    other.add(10)
    other.wait()

    assert not full.is_open


async def test_a_stop_ends_every_wait():
    window = FlowWindow(10)
    window.add(11)
    task = asyncio.ensure_future(window.wait_async())
    thread = threading.Thread(target=window.wait)
    thread.start()
    await asyncio.sleep(0)
    assert not task.done()

    await asyncio.to_thread(window.close)

    await asyncio.wait_for(task, 30)
    await asyncio.to_thread(thread.join, 30)
    assert not thread.is_alive()
    window.add(100)
    window.wait()


def test_acks_that_race_with_waits_leave_no_thread_behind():
    window = FlowWindow(10)
    done = []

    def stream():
        for _ in range(300):
            window.add(20)
            window.wait()
        done.append(True)

    thread = threading.Thread(target=stream)
    thread.start()
    while thread.is_alive():
        if not window.is_open:
            window.ack(20)
        time.sleep(0)
    thread.join(30)

    assert done


def test_without_a_size_nothing_waits():
    window = FlowWindow()
    window.add(100 * MAX_WINDOW)

    window.wait()

    assert window.is_open
