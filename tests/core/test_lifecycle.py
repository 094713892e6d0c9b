"""The life of a job: the table, the guards, and what no sequence of events may ever bring about."""

import copy

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runpod_worker.core import lifecycle
from runpod_worker.core.errors import IllegalTransition, StaleAttempt
from runpod_worker.core.job import FailureKind, Job, Lease, Policy, Status, StopReason
from runpod_worker.core.lifecycle import (
    FINAL,
    MAX_ATTEMPTS,
    TRANSITIONS,
    CancelRequested,
    Event,
    ExecutionTimedOut,
    Expired,
    Failed,
    LeaseExpired,
    LeaseRenewed,
    Released,
    Retried,
    Stopped,
    Succeeded,
    Taken,
    apply,
    due,
    infer_failure,
)
from tools import diagram

JOB = Job(id="j", endpoint="ep", created_at=100.0, queued_at=100.0)


def run(job: Job, *events: Event) -> Job:
    for event in events:
        job = apply(job, event)
    return job


def taken(*, confirms: bool = False, at: float = 110.0) -> Job:
    return run(JOB, Taken(at=at, worker="w", confirms=confirms))


# --- properties ---------------------------------------------------------------------------------------------------

times = st.floats(0, 1000, allow_nan=False)
workers = st.sampled_from(["w", "v"])
attempts = st.none() | st.integers(0, 3)
from_worker = {"at": times, "worker": workers, "attempt": attempts}
events = st.one_of(
    st.builds(Taken, at=times, worker=workers, confirms=st.booleans(), lease_s=st.floats(0, 60)),
    st.builds(LeaseRenewed, **from_worker),
    st.builds(Succeeded, **from_worker),
    st.builds(Failed, **from_worker, error=st.text(max_size=3)),
    st.builds(Stopped, **from_worker),
    st.builds(Released, **from_worker),
    *(st.builds(kind, at=times) for kind in (CancelRequested, LeaseExpired, ExecutionTimedOut, Expired, Retried)),
)
jobs = st.builds(
    Job,
    id=st.just("j"),
    endpoint=st.just("ep"),
    created_at=times,
    queued_at=times,
    policy=st.builds(Policy, execution_timeout_ms=st.integers(0, 10**6), ttl_ms=st.integers(0, 10**6)),
)


FINAL_OF_STOP = {
    StopReason.CANCELLED: Status.CANCELLED,
    StopReason.EXECUTION_TIMEOUT: Status.FAILED,
    StopReason.TTL: Status.TIMED_OUT,
}


def assert_in_table(job: Job, event: Event, new: Job) -> None:
    """The table allows the new status for this event."""
    transition = TRANSITIONS[job.status, type(event)]
    if job.stop is not None and transition.ends_stop:
        assert new.status is FINAL_OF_STOP[job.stop]
    else:
        assert new.status in transition.leads_to


def check(job: Job) -> None:
    """The invariants of every job."""
    assert (job.lease is not None) == (job.status is Status.IN_PROGRESS)
    assert (job.ended_at is not None) == job.final == (job.status in FINAL)
    assert 0 <= job.run_attempts <= MAX_ATTEMPTS
    assert job.stop is None or job.status is not Status.IN_QUEUE
    assert job.error is None or job.status is Status.FAILED
    assert (job.failure is not None) == (job.status is Status.FAILED)
    assert job.delay_ms is None or job.delay_ms >= 0
    assert job.execution_ms is None or job.execution_ms >= 0
    assert (job.due_at is None) == job.final


@settings(max_examples=500)
@given(jobs, st.lists(events, max_size=40))
def test_no_list_of_events_breaks_the_rules(job, happening):
    for event in happening:
        try:
            new = apply(job, event)
        except (IllegalTransition, StaleAttempt):
            continue
        check(new)
        assert new.version == job.version + 1
        assert_in_table(job, event, new)
        assert isinstance(event, Retried) or not job.final, "a final status is final"
        assert (new.id, new.endpoint, new.policy) == (job.id, job.endpoint, job.policy)
        job = new


@settings(max_examples=500)
@given(jobs, st.lists(events, max_size=20))
def test_time_always_brings_a_job_to_its_end(job, happening):
    for event in happening:
        try:
            job = apply(job, event)
        except (IllegalTransition, StaleAttempt):
            continue
    for _ in range(4):
        event = due(job, 1e9)
        if event is None:
            break
        job = apply(job, event)

    assert job.final


@settings(max_examples=500)
@given(jobs, st.lists(events, max_size=20), times)
def test_due_has_an_event_from_due_at_on_and_the_event_is_legal(job, happening, now):
    for event in happening:
        try:
            job = apply(job, event)
        except (IllegalTransition, StaleAttempt):
            continue
    event = due(job, now)

    assert (event is not None) == (job.due_at is not None and job.due_at <= now)
    if event is not None:
        check(apply(job, event))


@given(jobs, st.lists(events, max_size=20))
def test_apply_changes_nothing_it_was_given(job, happening):
    before = copy.copy(job)
    for event in happening:
        try:
            apply(job, event)
        except (IllegalTransition, StaleAttempt):
            continue

    assert job == before


# --- the table ----------------------------------------------------------------------------------------------------


def test_final_statuses_are_those_of_the_platform():
    assert {"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"} == FINAL


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("kind", [Taken, CancelRequested, Expired, LeaseExpired, ExecutionTimedOut, Retried])
def test_pair_that_is_not_in_the_table_is_refused(status, kind):
    lease = Lease(worker="w", until=150) if status is Status.IN_PROGRESS else None
    ended_at = 115 if status in FINAL else None
    job = msgspec.structs.replace(JOB, status=status, lease=lease, taken_at=110 if lease else None, ended_at=ended_at)
    event = Taken(at=120, worker="w") if kind is Taken else kind(at=120)

    if (status, kind) in TRANSITIONS:
        assert apply(job, event).status in TRANSITIONS[status, kind].leads_to
    else:
        with pytest.raises(IllegalTransition, match=f"{status}.*{kind.__name__}"):
            apply(job, event)


def test_readme_draws_the_table():
    readme = diagram.README.read_text(encoding="utf-8")

    assert diagram.diagram() in readme, "run `make docs`"


# --- the guards ---------------------------------------------------------------------------------------------------


def test_taken_job_is_leased_to_its_worker():
    job = run(JOB, Taken(at=110.0, worker="w", lease_s=40, take="t", gpu="24", confirms=True))

    assert job.lease == Lease(worker="w", until=150.0, take="t", confirms=True)
    assert (job.attempt, job.worker, job.gpu, job.delay_ms) == (1, "w", "24", 10_000)
    assert job.deadline == 110.0 + 600


def test_worker_that_does_not_hold_the_job_is_refused():
    for event in (
        Succeeded(at=111, worker="other"),
        Succeeded(at=111, worker="w", attempt=2),
        Failed(at=111, worker="other", error="e"),
        LeaseRenewed(at=111, worker="other"),
    ):
        with pytest.raises(StaleAttempt):
            apply(taken(), event)


def test_worker_of_an_older_attempt_is_refused_after_a_requeue():
    again = run(taken(), LeaseExpired(at=151), Taken(at=160, worker="w"))

    with pytest.raises(StaleAttempt):
        apply(again, Succeeded(at=161, worker="w", attempt=1))
    assert apply(again, Succeeded(at=161, worker="w", attempt=2)).status is Status.COMPLETED


def test_success_completes_and_measures():
    job = run(taken(), Succeeded(at=112.5, worker="w", attempt=1))

    assert (job.status, job.execution_ms, job.delay_ms, job.error) == (Status.COMPLETED, 2500, 10_000, None)


def test_failure_keeps_the_workers_text():
    job = run(taken(), Failed(at=111, worker="w", error="boom"))

    assert (job.error, job.failure) == ("boom", FailureKind.HANDLER_ERROR)


def test_lost_job_runs_once_more_and_then_fails_in_the_platforms_words():
    once = run(taken(), LeaseExpired(at=151))
    assert (once.status, once.retries, once.attempt, once.worker) == (Status.IN_QUEUE, 1, 1, None)

    twice = run(once, Taken(at=160, worker="v"), LeaseExpired(at=201))

    assert (twice.status, twice.error, twice.retries) == (Status.FAILED, "job timed out after 1 retries", 1)
    assert twice.failure is FailureKind.WORKER_LOST


def test_job_that_its_worker_stops_unasked_has_failed():
    job = run(taken(), Stopped(at=111, worker="w"))

    assert (job.status, job.failure) == (Status.FAILED, FailureKind.STOPPED)
    assert infer_failure(job.error, attempt=job.attempt) is FailureKind.STOPPED


def test_failure_of_a_job_that_an_older_release_stored_is_inferred_from_its_text():
    lost = run(taken(), LeaseExpired(at=151), Taken(at=160, worker="v"), LeaseExpired(at=201))

    assert infer_failure(lost.error, attempt=lost.attempt) is FailureKind.WORKER_LOST
    assert infer_failure("executionTimeout exceeded") is FailureKind.EXECUTION_TIMEOUT
    assert infer_failure("job timed out after all") is FailureKind.HANDLER_ERROR
    assert infer_failure(None) is FailureKind.HANDLER_ERROR


def test_released_job_spends_no_attempt():
    job = taken()
    for _ in range(10):
        job = run(job, Released(at=111, worker="w"), Taken(at=112, worker="w"))

    assert (job.attempt, job.retries) == (1, 0)


def test_heartbeat_extends_the_lease():
    assert run(taken(), LeaseRenewed(at=140, worker="w", lease_s=40)).lease.until == 180


@pytest.mark.parametrize(
    ("event", "status", "error"),
    [
        (CancelRequested(at=120), Status.CANCELLED, None),
        (ExecutionTimedOut(at=120), Status.FAILED, "executionTimeout exceeded"),
        (Expired(at=120), Status.TIMED_OUT, None),
    ],
)
def test_stop_is_final_at_once_unless_the_worker_confirms(event, status, error):
    at_once = run(taken(), event)
    assert (at_once.status, at_once.error) == (status, error)
    assert at_once.failure is (FailureKind.EXECUTION_TIMEOUT if status is Status.FAILED else None)

    stopping = run(taken(confirms=True), event)
    assert stopping.status is Status.IN_PROGRESS
    for last in (
        Stopped(at=125, worker="w"),
        Succeeded(at=125, worker="w"),
        Failed(at=125, worker="w", error="e"),
        Released(at=125, worker="w"),
        LeaseExpired(at=151),
    ):
        ended = run(stopping, last)
        assert (ended.status, ended.error, ended.ended_at) == (status, error, last.at)


def test_first_reason_to_stop_stands():
    job = run(taken(confirms=True), CancelRequested(at=120), Expired(at=121), ExecutionTimedOut(at=122))

    assert job.stop is StopReason.CANCELLED


def test_retry_starts_over_under_the_same_id():
    failed = run(taken(), Failed(at=111, worker="w", error="e"))

    again = run(failed, Retried(at=200))

    assert (again.status, again.run_attempts, again.error, again.ended_at, again.created_at) == (
        Status.IN_QUEUE,
        0,
        None,
        None,
        200,
    )


def test_a_late_report_of_an_earlier_run_is_stale_after_a_retry():
    lost = run(taken(), LeaseExpired(at=151), Taken(at=160, worker="w"), LeaseExpired(at=201))

    again = run(lost, Retried(at=300), Taken(at=301, worker="w"))

    for number in (1, 2):
        with pytest.raises(StaleAttempt):
            apply(again, Succeeded(at=302, worker="w", attempt=number))
    assert apply(again, Succeeded(at=302, worker="w", attempt=3)).status is Status.COMPLETED
    assert apply(again, LeaseExpired(at=400)).status is Status.IN_QUEUE  # the retry has two attempts of its own


def test_completed_and_cancelled_jobs_are_not_retried():
    for ended in run(taken(), Succeeded(at=111, worker="w")), run(JOB, CancelRequested(at=111)):
        with pytest.raises(IllegalTransition):
            apply(ended, Retried(at=112))


# --- time ---------------------------------------------------------------------------------------------------------


def test_lease_holds_at_its_end_and_not_after():
    job = taken()

    assert due(job, 150.0) is None
    assert due(job, 150.0 + 1e-9) == LeaseExpired(at=150.0 + 1e-9)


def test_queued_job_is_due_when_its_ttl_is_over():
    assert JOB.due_at == 100.0 + 86_400
    assert due(JOB, JOB.due_at) == Expired(at=JOB.due_at)


def test_deadline_is_due_before_the_lease():
    job = run(msgspec.structs.replace(JOB, policy=Policy(execution_timeout_ms=5_000)), Taken(at=110, worker="w"))

    assert due(job, 114.9) is None
    assert due(job, 115) == ExecutionTimedOut(at=115)


def test_job_that_is_being_stopped_is_due_only_when_its_lease_is_over():
    job = run(taken(confirms=True), CancelRequested(at=111))

    assert due(job, 150) is None
    assert isinstance(due(job, 1e6), LeaseExpired)


def test_rules_need_no_clock():
    assert not any(hasattr(lifecycle, name) for name in ("time", "datetime", "asyncio"))
