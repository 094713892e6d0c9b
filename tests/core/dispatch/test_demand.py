"""How many jobs a worker asks for, and when it does not let one wait."""

from typing import Any

from runpod_worker.core.dispatch import effects, events
from runpod_worker.core.dispatch.messages import Done, Revoke
from runpod_worker.core.dispatch.values import Assignment, TakeRequest, Timings

# ---------------------------------------------------------------- takes and prefetch


def learn(worker: Any, *durations: float) -> None:
    for duration in durations:
        worker.prefetch.add_duration(duration)
        worker.prefetch.add_round_trip(0.02)


def test_a_take_counts_until_it_is_answered_or_lost(drive: Any) -> None:
    worker = drive(slots=3)
    assert worker.dispatcher.wanted(worker.now) == 3
    worker.send(events.TakeSent(TakeRequest(2, "t"), is_poll=True))

    assert worker.dispatcher.wanted(worker.now) == 1
    worker.send(events.Assigned("t", ()))
    assert worker.dispatcher.wanted(worker.now) == 3
    worker.send(events.TakeLost("t"))  # a reply that came twice changes nothing
    assert worker.dispatcher.wanted(worker.now) == 3


def test_nothing_is_taken_while_too_much_is_undelivered(drive: Any) -> None:
    worker = drive()
    for number in range(64):
        worker.send(events.Received(0, Done(key=worker.start(f"j{number}"))))

    assert worker.dispatcher.wanted(worker.now) == 0
    worker.send(events.Delivered("j0#1"))
    assert worker.dispatcher.wanted(worker.now) == 1


def test_nothing_is_taken_while_the_reports_are_full(drive: Any) -> None:
    worker = drive()
    worker.send(events.ReportsFull(True))

    assert worker.dispatcher.wanted(worker.now) == 0


def test_large_jobs_are_not_prefetched_beyond_their_bytes(drive: Any) -> None:
    worker = drive()
    learn(worker, *[0.0] * 20)
    assert worker.dispatcher.wanted(worker.now) == 33
    worker.send(events.TakeSent(TakeRequest(1, "t"), is_poll=True))
    [run] = worker.send(events.Assigned("t", (Assignment(id="a", body=b"x" * 16 * 2**20),)))
    assert isinstance(run, effects.Send)

    worker.send(events.Received(0, Done(key=run.message.key)))

    assert worker.dispatcher.wanted(worker.now) == 2


def test_a_deadline_comes_when_the_next_job_is_wanted(drive: Any) -> None:
    worker = drive()
    learn(worker, *[1.0] * 20)
    worker.start("a")
    assert worker.dispatcher.wanted(worker.now) == 0

    worker.tick()

    assert worker.dispatcher.wanted(worker.now) == 1


def test_a_job_behind_one_that_outlives_all_recent_ones_is_revoked(drive: Any) -> None:
    worker = drive()
    learn(worker, *[0.05] * 20)
    worker.start("a")
    [waiting] = worker.assign("b")
    assert isinstance(waiting, effects.Send)
    began = worker.now

    result = worker.tick_until(Revoke)

    assert 0.0625 < worker.now - began < 0.2
    assert result == [effects.Send(0, Revoke(waiting.message.key, is_blocked=True), waiting.attempt)]


def test_a_take_for_a_slot_whose_job_outlives_all_recent_ones_is_withdrawn(drive: Any) -> None:
    worker = drive()
    learn(worker, *[0.05] * 20)
    worker.start("a")
    worker.send(events.TakeSent(TakeRequest(1, "open"), is_poll=True))

    assert worker.tick_until(effects.WithdrawTake) == [effects.WithdrawTake("open")]
    assert worker.dispatcher.next_deadline() is None


def test_durations_and_preparation_are_learned_from_the_executors_times(drive: Any) -> None:
    worker = drive()
    worker.prefetch.add_round_trip(0.0)
    key = worker.start("a")
    timings = Timings(worker.now + 0.125, worker.now + 0.2, worker.now + 1.0, worker.now + 1.0)

    worker.send(events.Received(0, Done(key=key, timings=timings)))

    assert worker.prefetch.outlier_s > 1.25
    assert worker.prefetch.lead_s > 0.125
