"""When executors are started, replaced and given up."""

import pytest

from runpod_worker.core.dispatch import effects, events
from runpod_worker.core.dispatch.dispatcher import Dispatcher
from runpod_worker.core.dispatch.messages import LoadFailed, Ready, SlotsChanged
from runpod_worker.core.dispatch.values import ExitReport
from runpod_worker.core.prefetch import PrefetchEstimator

READY = Ready("function", 1, 0.0, "cpu")
CRASHED = ExitReport(how="exited with code 7", exit_code=7)


@pytest.fixture
def dispatcher() -> Dispatcher:
    prefetch = PrefetchEstimator(prefetch_s=0.5, prefetch_jobs=32)
    return Dispatcher(executors=1, prefetch=prefetch, grace_s=30, stop_grace_s=5, load_timeout_s=60)


def exit_once(dispatcher: Dispatcher, report: ExitReport = CRASHED) -> list[effects.Effect]:
    return dispatcher.handle(events.ExecutorExited(0, report), 1.0)


def test_every_executor_is_started_with_the_worker() -> None:
    prefetch = PrefetchEstimator(prefetch_s=0.5, prefetch_jobs=32)
    dispatcher = Dispatcher(executors=2, prefetch=prefetch, grace_s=30, stop_grace_s=5, load_timeout_s=60)

    result = dispatcher.handle(events.WorkerStarted(), 0.0)

    assert result == [effects.StartExecutor(0), effects.StartExecutor(1)]


def test_an_executor_that_was_ready_is_replaced_at_once(dispatcher: Dispatcher) -> None:
    dispatcher.handle(events.WorkerStarted(), 0.0)
    dispatcher.handle(events.Received(0, READY), 0.5)

    assert exit_once(dispatcher) == [effects.StartExecutor(0, 0.0, "exited with code 7")]


def test_failures_before_it_is_ready_are_counted_with_growing_pauses(dispatcher: Dispatcher) -> None:
    dispatcher.handle(events.WorkerStarted(), 0.0)

    first, second, third = (exit_once(dispatcher) for _ in range(3))

    assert first == [effects.StartExecutor(0, 0.5, "exited with code 7")]
    assert second == [effects.StartExecutor(0, 1.0, "exited with code 7")]
    assert third[0] == effects.AnnounceDrain(1, "the handler's process exited with code 7 3 times before it was ready")


def test_an_executor_that_was_ready_in_between_starts_counting_anew(dispatcher: Dispatcher) -> None:
    dispatcher.handle(events.WorkerStarted(), 0.0)
    for _ in range(2):
        exit_once(dispatcher)
    dispatcher.handle(events.Received(0, READY), 0.5)

    assert exit_once(dispatcher) == [effects.StartExecutor(0, 0.0, "exited with code 7")]


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        (ExitReport(how="exited with code 0", exit_code=0), "the handler's program ended without worker.start()"),
        (ExitReport(how="died", can_restart=False), "the handler's process died"),
    ],
)
def test_what_cannot_get_better_ends_the_worker(dispatcher: Dispatcher, report: ExitReport, reason: str) -> None:
    dispatcher.handle(events.WorkerStarted(), 0.0)

    assert exit_once(dispatcher, report) == [effects.AnnounceDrain(1, reason), effects.Exit(cut_off=False)]


def test_a_model_that_cannot_be_loaded_ends_the_worker(dispatcher: Dispatcher) -> None:
    dispatcher.handle(events.WorkerStarted(), 0.0)
    dispatcher.handle(events.Received(0, LoadFailed("no weights")), 0.5)

    reason = "the model could not be loaded: no weights"
    assert exit_once(dispatcher) == [effects.AnnounceDrain(1, reason), effects.Exit(cut_off=False)]


def test_a_failed_check_is_reported_with_its_name_and_reason(dispatcher: Dispatcher) -> None:
    dispatcher.handle(events.WorkerStarted(), 0.0)
    failed = LoadFailed("the check gpu failed: too hot", "gpu", "too hot")
    dispatcher.handle(events.Received(0, failed), 0.5)

    result = exit_once(dispatcher)

    assert result[0] == effects.ReportUnhealthy("gpu", "too hot")


def test_a_model_that_loads_too_long_is_killed_and_ends_the_worker(dispatcher: Dispatcher) -> None:
    dispatcher.handle(events.WorkerStarted(), 0.0)
    assert dispatcher.next_deadline() == 60.0

    [kill] = dispatcher.handle(events.Tick(), 60.0)
    result = exit_once(dispatcher)

    assert kill == effects.Kill(0, "it took longer than 60 s (RUNPOD_INIT_TIMEOUT)")
    assert isinstance(result[0], effects.AnnounceDrain)
    assert "took longer than 60 s" in result[0].reason


def test_a_worker_that_drains_replaces_no_executor(dispatcher: Dispatcher) -> None:
    dispatcher.handle(events.WorkerStarted(), 0.0)
    dispatcher.handle(events.Drain(0, "a signal"), 0.5)

    assert exit_once(dispatcher) == []


def test_the_number_of_slots_may_change(dispatcher: Dispatcher) -> None:
    dispatcher.handle(events.Received(0, READY), 0.0)
    dispatcher.handle(events.Received(0, SlotsChanged(4)), 0.0)

    assert dispatcher.wanted(0.0) == 4
