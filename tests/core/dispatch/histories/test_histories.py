"""Random histories of a worker keep the rules, and each removed rule is found."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from runpod_worker.core.dispatch import effects, events
from runpod_worker.core.dispatch.dispatcher import Dispatcher
from runpod_worker.core.dispatch.job_rules import JobRules
from runpod_worker.core.dispatch.state import ExecutorState, HeldJob
from runpod_worker.core.dispatch.values import ExitReport, Outcome, StopCause

BASE = settings(
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


def test_every_history_keeps_the_rules(worker_machine: Any) -> None:
    run_state_machine_as_test(worker_machine, settings=settings(BASE, max_examples=600))
    assert worker_machine.examples >= 600


# ---------------------------------------------------------------- planted bugs: one rule removed each


def planted(name: str, method: Callable[..., Any], base: type = Dispatcher) -> type[Dispatcher]:
    return type("Planted", (base,), {name: method})


def never_kills(self: Any, job: HeldJob, cause: StopCause) -> None:
    JobRules._stop(self, job, cause)
    self._deadlines.clear(job.key)


def loses_waiting_jobs(self: Any, job: HeldJob, exited: ExitReport) -> None:
    if job.started_at is not None or job.stop is not None:
        JobRules._lose_executor(self, job, exited)


def runs_streams_again(self: Any, job: HeldJob, exited: ExitReport) -> None:
    job.has_streamed = False
    JobRules._run_elsewhere(self, job, exited)


def never_gives_up_on_a_job(self: Any, job: HeldJob, exited: ExitReport) -> None:
    job.executors_lost = -1
    JobRules._run_elsewhere(self, job, exited)


def reports_stopped_jobs(self: Any, job: HeldJob, outcome: Outcome) -> None:
    self._report(job, outcome)


def forgets_to_close_takes(self: Any, event: events.TakeLost) -> None:
    if self._can_release:
        self._emit(effects.ReleaseTake(event.take_id))


def keeps_delivered_jobs(self: Any, event: events.Delivered) -> None:
    self._undelivered -= event.key in self._jobs


def releases_stopped_jobs(self: Any) -> None:
    for executor in self._executors:
        for job in executor.clear():
            self._release(job)
    self._exit(cut_off=True)


def sends_jobs_to_killed_executors(self: Any, executor: ExecutorState, reason: str) -> None:
    Dispatcher._kill(self, executor, reason)
    executor.is_killed = False


def revokes_again_and_again(self: Any, executor: ExecutorState, key: str, *, is_blocked: bool) -> None:
    Dispatcher._revoke(self, executor, key, is_blocked=is_blocked)
    executor.waiting[key].is_revoking = False


BUGS: dict[str, tuple[type[Dispatcher], int]] = {
    "adopts every held job": (planted("_can_adopt", lambda self, held, attempt: True), 100),
    "never adopts": (planted("_can_adopt", lambda self, held, attempt: False), 200),
    "starts jobs after Drain": (planted("_may_run", lambda self, job, executors: True), 200),
    "loses jobs that waited in a dead process": (planted("_lose_executor", loses_waiting_jobs), 100),
    "runs a stream again": (planted("_run_elsewhere", runs_streams_again), 1000),
    "never fails a job that kills executors": (planted("_run_elsewhere", never_gives_up_on_a_job), 300),
    "never kills": (planted("_stop", never_kills), 100),
    "reports jobs that were stopped": (planted("_finish", reports_stopped_jobs), 200),
    "never confirms an unseen stop": (planted("_confirm_stop", lambda self, attempt: None), 100),
    "never closes lost takes": (planted("_on_take_lost", forgets_to_close_takes), 100),
    "keeps delivered jobs": (planted("_on_delivered", keeps_delivered_jobs), 100),
    "releases stopped jobs at the end of the grace": (planted("_cut_off", releases_stopped_jobs), 200),
    "sends jobs to a killed executor": (planted("_kill", sends_jobs_to_killed_executors), 300),
    "revokes again and again": (planted("_revoke", revokes_again_and_again), 300),
    "ignores time-outs": (planted("_limit", lambda self, job, at, cause: None), 100),
}


@pytest.mark.parametrize("name", BUGS)
def test_the_machine_finds_a_removed_rule(name: str, worker_machine: Any) -> None:
    """Each bug must be found within the number of examples beside it."""
    dispatcher_class, examples = BUGS[name]
    machine: Any = type("PlantedMachine", (worker_machine,), {"dispatcher_class": dispatcher_class, "examples": 0})

    with pytest.raises((AssertionError, KeyError)):
        run_state_machine_as_test(machine, settings=settings(BASE, max_examples=examples))
    print(f"{name}: found after {machine.examples} examples of at most {examples}")
