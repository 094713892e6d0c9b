"""The decisions about each job, event by event."""

from typing import Any

import pytest

from runpod_worker.core.dispatch import effects, events
from runpod_worker.core.dispatch.job_rules import EXECUTOR_FIRST_S
from runpod_worker.core.dispatch.messages import Done, Started, Stop
from runpod_worker.core.dispatch.values import (
    Assignment,
    AttemptRef,
    ExitReport,
    OnRefresh,
    Outcome,
    StopCause,
    TakeRequest,
)

KILLED = ExitReport(how="was killed by SIGKILL", killed_for="it did not stop")
CRASHED = ExitReport(how="exited with code 3", last_lines="Traceback", exit_code=3)


def kinds(result: list[effects.Effect]) -> list[str]:
    """The names of the effects, or of the messages that they send."""
    return [type(getattr(effect, "message", effect)).__name__ for effect in result]


def outcomes(result: list[effects.Effect]) -> list[Outcome]:
    return [effect.outcome for effect in result if isinstance(effect, effects.Report)]


# ---------------------------------------------------------------- the life of a job


def test_an_assigned_job_runs_is_reported_and_forgotten(drive: Any) -> None:
    worker = drive()
    key = worker.start("a")

    [report] = worker.send(events.Received(0, Done(key=key, output=b"1")))

    assert isinstance(report, effects.Report)
    assert report.outcome.output == b"1"
    assert list(worker.dispatcher.attempts()) == ["a"]
    assert worker.send(events.Delivered(key)) == []
    assert list(worker.dispatcher.attempts()) == []


def test_a_job_without_input_is_reported_as_failed_and_does_not_run(drive: Any) -> None:
    worker = drive()
    worker.send(events.TakeSent(TakeRequest(1, "t"), is_poll=True))

    result = worker.send(events.Assigned("t", (Assignment(id="a", body=b"{}", error="no input"),)))

    assert [outcome.error for outcome in outcomes(result)] == ["no input"]


def test_jobs_wait_until_an_executor_is_ready_and_run_in_their_order(drive: Any) -> None:
    worker = drive(slots=0)
    assert worker.assign("a", "b") == []

    result = worker.become_ready()

    assert [effect.attempt.job_id for effect in result if isinstance(effect, effects.Send)] == ["a", "b"]


def test_a_job_goes_to_the_executor_that_has_room(drive: Any) -> None:
    worker = drive(executors=2)

    runs = worker.assign("a", "b")

    assert sorted(effect.executor for effect in runs if isinstance(effect, effects.Send)) == [0, 1]


def test_a_handler_that_asks_for_a_new_worker_drains_it(drive: Any) -> None:
    worker = drive()
    key = worker.start("a")

    result = worker.send(events.Received(0, Done(key=key, refresh=True)))

    assert kinds(result) == ["Report", "AnnounceDrain", "Exit"]
    assert worker.dispatcher.wanted(worker.now) == 0


def test_where_nothing_restarts_the_worker_a_free_executor_is_replaced_instead(drive: Any) -> None:
    worker = drive(slots=2, on_refresh=OnRefresh.REPLACE)
    first, second = worker.start("a"), worker.start("b")

    assert kinds(worker.send(events.Received(0, Done(key=first, refresh=True)))) == ["Report"]
    assert worker.dispatcher.wanted(worker.now) == 0
    assert kinds(worker.send(events.Received(0, Done(key=second)))) == ["Report", "Retire"]
    ended = worker.send(events.ExecutorExited(0, ExitReport(how="exited with code 0", exit_code=0)))
    worker.become_ready(0, 2)

    assert kinds(ended) == ["StartExecutor"]
    assert worker.dispatcher.wanted(worker.now) > 0


def test_a_worker_that_can_replace_nothing_takes_further_jobs(drive: Any) -> None:
    worker = drive(on_refresh=OnRefresh.KEEP)
    key = worker.start("a")

    assert kinds(worker.send(events.Received(0, Done(key=key, refresh=True)))) == ["Report"]
    assert worker.dispatcher.wanted(worker.now) > 0


# ---------------------------------------------------------------- assigned again (behaviour 1)


def test_a_job_assigned_again_while_it_runs_is_adopted_and_not_run_twice(drive: Any) -> None:
    worker = drive()
    key = worker.start("a")

    [adopt] = worker.assign("a", attempt=2)
    [report] = worker.send(events.Received(0, Done(key=key, output=b"1")))

    assert adopt == effects.Adopt(key, AttemptRef("a", 2, "take2"), 1)
    assert isinstance(report, effects.Report)
    assert report.attempt.number == 2


def test_a_job_assigned_again_while_its_outcome_is_on_the_way_is_adopted(drive: Any) -> None:
    worker = drive()
    key = worker.start("a")
    worker.send(events.Received(0, Done(key=key, output=b"1")))

    assert kinds(worker.assign("a", attempt=2)) == ["Adopt"]


def test_a_stream_that_is_assigned_again_runs_anew(drive: Any) -> None:
    worker = drive(slots=2)
    key = worker.start("a")
    worker.send(events.Streamed(key))

    result = worker.assign("a", attempt=2)

    assert kinds(result) == ["DiscardReports", "Stop", "Run"]
    assert list(worker.dispatcher.attempts()) == ["a"]
    assert kinds(worker.send(events.Received(0, Done(key=key, stopped=True)))) == ["Forget"]
    assert list(worker.dispatcher.attempts()) == ["a"]


def test_a_job_assigned_again_while_it_is_being_stopped_runs_anew(drive: Any) -> None:
    worker = drive(slots=2)
    worker.start("a")
    worker.send(events.StopRequested(AttemptRef("a", 1)))

    assert kinds(worker.assign("a", attempt=2)) == ["Run"]


# ---------------------------------------------------------------- late chunks and files (behaviour 2)


def test_a_job_stays_known_after_its_slot_is_free_until_its_outcome_is_delivered(drive: Any) -> None:
    """Chunks and files that are encoded after the slot is free still belong to it."""
    worker = drive()
    key = worker.start("a")
    worker.send(events.Received(0, Done(key=key, files=1)))

    worker.send(events.Streamed(key))

    assert list(worker.dispatcher.attempts()) == ["a"]
    assert worker.dispatcher.wanted(worker.now) == 1


# ---------------------------------------------------------------- stops (behaviour 3)


def test_a_stop_is_confirmed_when_the_slot_is_free(drive: Any) -> None:
    worker = drive()
    key = worker.start("a")

    result = worker.send(events.StopRequested(AttemptRef("a", None)))
    assert kinds(result) == ["DiscardReports", "Stop"]

    [report] = worker.send(events.Received(0, Done(key=key, stopped=True)))
    assert isinstance(report, effects.Report)
    assert (report.outcome, report.stopped_for) == (Outcome(stopped=True), StopCause.SERVICE)


@pytest.mark.parametrize("number", [None, 7])
def test_a_stop_for_an_attempt_that_was_never_seen_is_confirmed_once(drive: Any, number: int | None) -> None:
    worker = drive()

    first = worker.send(events.StopRequested(AttemptRef("a", number)))
    second = worker.send(events.StopRequested(AttemptRef("a", number)))

    assert outcomes(first + second) == [Outcome(stopped=True)]
    assert list(worker.dispatcher.attempts()) == []


def test_a_stop_for_an_earlier_attempt_does_not_stop_the_one_that_runs(drive: Any) -> None:
    worker = drive()
    worker.start("a", attempt=2)

    result = worker.send(events.StopRequested(AttemptRef("a", 1)))

    assert kinds(result) == ["Report"]


def test_a_plain_service_hears_nothing_of_a_stopped_job(drive: Any) -> None:
    worker = drive(extensions=())
    key = worker.start("a", attempt=None)
    worker.send(events.StopRequested(AttemptRef("a", None)))

    result = worker.send(events.Received(0, Done(key=key, stopped=True)))

    assert kinds(result) == ["Forget"]
    assert worker.send(events.StopRequested(AttemptRef("b", None))) == []


def test_a_job_that_waits_for_an_executor_is_stopped_at_once(drive: Any) -> None:
    worker = drive(slots=0)
    worker.assign("a")

    result = worker.send(events.StopRequested(AttemptRef("a", 1)))

    assert outcomes(result) == [Outcome(stopped=True)]
    assert worker.become_ready() == []


def test_a_job_that_does_not_stop_costs_its_executor_the_process(drive: Any) -> None:
    worker = drive()
    worker.start("a")
    worker.send(events.StopRequested(AttemptRef("a", 1)))
    stopped_at = worker.now

    [kill] = worker.tick_until(effects.Kill)

    assert worker.now == stopped_at + 5
    assert isinstance(kill, effects.Kill)
    assert "did not stop within 5 s" in kill.reason
    assert outcomes(worker.send(events.ExecutorExited(0, KILLED))) == [Outcome(stopped=True)]


def test_a_lost_lease_stops_the_job_in_silence(drive: Any) -> None:
    worker = drive()
    key = worker.start("a")

    assert kinds(worker.send(events.LeaseLost(key))) == ["DiscardReports", "Stop"]
    assert kinds(worker.send(events.Received(0, Done(key=key, stopped=True)))) == ["Forget"]


# ---------------------------------------------------------------- executors exit (behaviours 4 and 5)


def test_the_job_that_ran_in_a_dead_process_fails_with_its_last_lines(drive: Any) -> None:
    worker = drive()
    worker.start("a")

    result = worker.send(events.ExecutorExited(0, CRASHED))

    [outcome] = outcomes(result)
    assert outcome.error == "the handler's process exited with code 3 while the job ran; its last lines:\nTraceback"
    assert kinds(result) == ["DiscardReports", "Report", "StartExecutor"]


def test_a_job_that_waited_in_a_dead_process_is_released(drive: Any) -> None:
    worker = drive()
    worker.start("a")
    worker.assign("b")

    result = worker.send(events.ExecutorExited(0, CRASHED))

    assert [effect.attempt.job_id for effect in result if isinstance(effect, effects.Release)] == ["b"]


def test_where_nothing_can_be_released_the_other_jobs_of_a_killed_process_run_again(drive: Any) -> None:
    worker = drive(slots=2, extensions=())
    worker.start("a", attempt=None)

    assert kinds(worker.send(events.ExecutorExited(0, KILLED))) == ["StartExecutor"]
    assert kinds(worker.become_ready()) == ["Run"]


def test_a_job_that_has_streamed_is_not_run_again(drive: Any) -> None:
    worker = drive(extensions=())
    key = worker.start("a", attempt=None)
    worker.send(events.Streamed(key))

    [outcome] = outcomes(worker.send(events.ExecutorExited(0, KILLED)))

    assert "cannot run again because it has sent chunks" in (outcome.error or "")


def test_a_job_that_loses_two_executors_before_it_starts_fails(drive: Any) -> None:
    worker = drive(extensions=())
    worker.assign("a", attempt=None)
    assert outcomes(worker.send(events.ExecutorExited(0, CRASHED))) == []
    worker.become_ready()

    [outcome] = outcomes(worker.send(events.ExecutorExited(0, CRASHED)))

    assert outcome.error == "the handler's process exited with code 3 each time it was given this job"


# ---------------------------------------------------------------- the drain (behaviour 6)


def test_a_drain_releases_what_has_not_started_and_exits_after_the_job_that_runs(drive: Any) -> None:
    worker = drive()
    key = worker.start("a")
    [waiting] = worker.assign("b")
    assert isinstance(waiting, effects.Send)
    worker.send(events.TakeSent(TakeRequest(1, "open"), is_poll=True))

    result = worker.send(events.Drain(0, "a signal"))
    assert kinds(result) == ["AnnounceDrain", "WithdrawTake", "Revoke"]

    assert kinds(worker.send(events.Received(0, Done(key=waiting.message.key, revoked=True)))) == ["Release"]
    assert kinds(worker.assign("c")) == ["Release"]
    assert kinds(worker.send(events.TakeLost("open"))) == ["ReleaseTake"]
    assert kinds(worker.send(events.Received(0, Done(key=key)))) == ["Report", "Exit"]


def test_where_nothing_can_be_released_a_drain_runs_the_waiting_jobs(drive: Any) -> None:
    worker = drive(extensions=())
    first = worker.start("a", attempt=None)
    [second] = worker.assign("b", attempt=None)
    assert isinstance(second, effects.Send)

    assert kinds(worker.send(events.Drain(0, "a signal"))) == ["AnnounceDrain"]
    assert kinds(worker.assign("c", attempt=None)) == ["Run"]
    assert kinds(worker.send(events.Received(0, Done(key=first)))) == ["Report"]
    assert kinds(worker.send(events.Received(0, Done(key=second.message.key)))) == ["Report"]


def test_a_drain_without_a_ready_executor_forgets_what_it_cannot_release(drive: Any) -> None:
    worker = drive(slots=0, extensions=())
    worker.assign("a", attempt=None)

    assert kinds(worker.send(events.Drain(0, "a signal"))) == ["AnnounceDrain", "Forget", "Exit"]


def test_after_the_grace_the_jobs_that_still_run_are_released(drive: Any) -> None:
    worker = drive()
    worker.start("a")
    worker.send(events.Drain(0, "a signal"))
    began = worker.now

    result = worker.tick_until(effects.Exit)

    assert worker.now == began + 30
    assert kinds(result) == ["Release", "Exit"]
    assert result[-1] == effects.Exit(cut_off=True)
    assert worker.dispatcher.next_deadline() is None


def test_the_first_drain_decides_the_code_and_a_forced_end_cuts_it_off(drive: Any) -> None:
    worker = drive()
    worker.start("a")
    worker.send(events.Drain(0, "a signal"))

    assert worker.send(events.Drain(1, "a fault")) == []
    assert kinds(worker.send(events.GraceOver())) == ["Release", "Exit"]


# ---------------------------------------------------------------- time-outs (behaviour 7)


def test_the_agent_notices_a_timeout_a_quarter_of_a_second_after_the_executor(drive: Any) -> None:
    worker = drive()
    taken_at = worker.now
    key = worker.start("a", timeout_s=3.0)

    result = worker.tick_until(Stop)

    assert worker.now == taken_at + 3 + EXECUTOR_FIRST_S == taken_at + 3.25
    assert result[-1] == effects.Send(0, Stop(key, StopCause.TIMEOUT), AttemptRef("a", 1, "take1"))
    [outcome] = outcomes(worker.send(events.Received(0, Done(key=key, stopped=True))))
    assert outcome.error == "executionTimeout exceeded"


def test_the_handlers_own_timeout_counts_from_its_start(drive: Any) -> None:
    worker = drive(slots=0)
    worker.become_ready(timeout_s=2.0)
    [run] = worker.assign("a", timeout_s=100.0)
    assert isinstance(run, effects.Send)
    worker.send(events.Received(0, Started(run.message.key, worker.now)), after=1.0)
    started_at = worker.now - 1.0

    result = worker.tick_until(Stop)

    assert worker.now == started_at + 2.25
    assert isinstance(result[-1], effects.Send)
    assert isinstance(result[-1].message, Stop)
    assert result[-1].message.reason is StopCause.HANDLER_TIMEOUT


# ---------------------------------------------------------------- the leases that the service lists


def test_a_job_without_a_lease_stops_unless_it_was_assigned_again_or_reported(drive: Any) -> None:
    worker = drive(slots=3)
    lost, _, done = (worker.start(job) for job in ("lost", "kept", "done"))
    worker.send(events.Received(0, Done(key=done, output=b"1")))
    listed = worker.dispatcher.attempts()
    assert listed == {"lost": 1, "kept": 1, "done": 1}

    [_, stop] = worker.send(events.LeasesListed(listed, frozenset({"kept"})))

    assert (stop.message.key, stop.message.reason) == (lost, StopCause.LEASE_LOST)
    worker.assign("kept", attempt=2)
    assert worker.send(events.LeasesListed(listed, frozenset())) == []


def test_a_job_that_waits_for_an_executor_is_released_when_its_lease_is_lost(drive: Any) -> None:
    worker = drive(slots=0)
    worker.assign("a")

    assert kinds(worker.send(events.LeasesListed({"a": 1}, frozenset()))) == ["Release"]
    assert worker.dispatcher.attempts() == {}


def test_processes_that_die_before_a_job_ends_well_are_started_with_growing_pauses(drive: Any) -> None:
    worker = drive()

    def crash() -> float:
        [start] = [e for e in worker.send(events.ExecutorExited(0, CRASHED)) if isinstance(e, effects.StartExecutor)]
        worker.become_ready()
        return start.delay_s

    assert [crash() for _ in range(4)] == [0.0, 0.5, 1.0, 2.0]
    worker.send(events.Received(0, Done(key=worker.start("a"))))
    assert crash() == 0.0
