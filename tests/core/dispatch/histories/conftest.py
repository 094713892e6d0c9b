"""A worker's surroundings, for random histories: the service, the executors, and what must hold after each event.

The machine plays the service and the executors, performs every effect, and checks each against its own record.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from runpod_worker.core.dispatch import effects, events, messages
from runpod_worker.core.dispatch.dispatcher import Dispatcher
from runpod_worker.core.dispatch.job_rules import EXECUTOR_FIRST_S
from runpod_worker.core.dispatch.values import Assignment, AttemptRef, ExitReport, Outcome, StopCause, TakeRequest
from runpod_worker.core.prefetch import PrefetchEstimator

STOP_GRACE_S, GRACE_S, LOAD_TIMEOUT_S = 2.0, 10.0, 60.0
JOBS = ("a", "b", "c", "d")
IDS = st.lists(st.sampled_from(JOBS), min_size=1, max_size=3, unique=True)
TIMEOUTS = st.sampled_from([None, None, 1.0, 20.0])
EXTENSIONS = (frozenset(), frozenset({"return", "stop"}), frozenset({"return"}), frozenset({"stop"}))


@dataclass(eq=False)
class Run:
    """One run, as the service and the executors see it."""

    key: str
    attempt: AttemptRef
    timeout_at: float | None = None
    started: bool = False
    streamed: bool = False
    stop: StopCause | None = None
    stop_at: float = 0.0
    revoking: bool = False
    executors_lost: int = 0
    ended: bool = False


@dataclass(eq=False)
class Executor:
    """One process: absent, loading, ready, or killed and not gone yet."""

    state: str = "absent"
    slots: int = 1
    jobs: dict[str, Run] = field(default_factory=dict)

    def running(self) -> list[Run]:
        return [run for run in self.jobs.values() if run.started]

    def waiting(self) -> list[Run]:
        return [run for run in self.jobs.values() if not run.started]

    @property
    def can_start(self) -> bool:
        return bool(self.waiting()) and len(self.running()) < self.slots


class WorkerMachine(RuleBasedStateMachine):
    """A service and executors around one dispatcher."""

    dispatcher_class: ClassVar[type[Dispatcher]] = Dispatcher
    examples: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).examples += 1
        self.now = 0.0
        self.runs: dict[str, Run] = {}
        self.pending: dict[AttemptRef, float | None] = {}
        """Assigned attempts that have not ended, with their time-outs."""
        self.attempts: dict[str, int] = {}
        self.takes: dict[str, TakeRequest] = {}
        self.withdrawn: set[str] = set()
        self.undelivered: dict[str, AttemptRef] = {}
        self.number = 0
        self.draining = self.exited = self.full = False

    @initialize(executors=st.integers(1, 2), extensions=st.sampled_from(EXTENSIONS), ready=st.sampled_from([0, 1, 2]))
    def begin(self, executors: int, extensions: frozenset[str], ready: int) -> None:
        self.executors = [Executor() for _ in range(executors)]
        self.extensions = extensions
        self.dispatcher = self.dispatcher_class(
            executors=executors,
            prefetch=PrefetchEstimator(prefetch_s=0.5, prefetch_jobs=4),
            grace_s=GRACE_S,
            stop_grace_s=STOP_GRACE_S,
            load_timeout_s=LOAD_TIMEOUT_S,
        )
        self.send(events.WorkerStarted())
        self.send(events.Agreed(extensions))
        for number in range(min(ready, executors)):
            self.become_ready(number, slots=2, timeout_s=None)

    # ---------------------------------------------------------------- effects, performed and checked

    def send(self, event: events.Event) -> list[effects.Effect]:
        result = self.dispatcher.handle(event, self.now)
        for effect in result:
            name = re.sub(r"(?<!^)([A-Z])", r"_\1", type(getattr(effect, "message", effect)).__name__).lower()
            getattr(self, f"on_{name}", self.accept)(effect)
        return result

    def accept(self, effect: effects.Effect) -> None:
        assert isinstance(effect, effects.ReleaseTake | effects.DiscardReports)

    def on_start_executor(self, effect: effects.StartExecutor) -> None:
        assert self.executors[effect.executor].state == "absent"
        assert not self.draining, "an executor was started after Drain"
        self.executors[effect.executor] = Executor("loading")

    def on_run(self, effect: Any) -> None:
        executor, message = self.executors[effect.executor], effect.message
        assert executor.state == "ready", f"a job was sent to an executor that is {executor.state}"
        run = self.runs.setdefault(message.key, Run(message.key, effect.attempt))
        assert not run.ended
        assert effect.attempt in self.pending
        assert not any(run.key in each.jobs for each in self.executors), "one attempt runs twice"
        assert not (run.started and run.streamed), "a job that has streamed runs again"
        assert run.executors_lost < 2, "a job runs again that has lost two executors"
        assert not (self.draining and "return" in self.extensions), "a job was started after Drain"
        assert not self.exited, "a job was started after Exit"
        for other in (other for each in self.executors for other in each.jobs.values()):
            if other.attempt.job_id == effect.attempt.job_id:
                assert other.stop is not None, "a job runs twice"
        run.timeout_at = None if message.timeout_s is None else message.taken_at + message.timeout_s
        run.started = run.revoking = False
        executor.jobs[run.key] = run

    def on_stop(self, effect: Any) -> None:
        run = self.executors[effect.executor].jobs[effect.message.key]
        assert run.stop is None, "a job was stopped twice"
        run.stop, run.stop_at = effect.message.reason, self.now

    def on_revoke(self, effect: effects.Send) -> None:
        run = self.executors[effect.executor].jobs[effect.message.key]
        assert not run.revoking, "a job was revoked twice"
        assert "return" in self.extensions
        run.revoking = True

    def on_kill(self, effect: effects.Kill) -> None:
        assert self.executors[effect.executor].state in ("loading", "ready"), "an executor was killed twice"
        self.executors[effect.executor].state = "killed"

    def on_adopt(self, effect: effects.Adopt) -> None:
        run = self.runs.get(effect.key)
        if run is not None:
            assert run.stop is None, "a job that is being stopped was adopted"
            assert not run.streamed or effect.attempt.number is None, "a stream was adopted"
        if effect.key in self.undelivered:  # the report is sent again, for the new attempt
            self.undelivered[effect.key] = effect.attempt
            del self.pending[effect.attempt]
            return
        if run is not None:
            old, run.attempt = run.attempt, effect.attempt
        else:  # it waits for an executor
            known = {other.attempt for other in self.runs.values()} | {effect.attempt}
            [old] = [ref for ref in self.pending.keys() - known if ref.job_id == effect.attempt.job_id]
        self.pending[effect.attempt] = self.pending.pop(old)

    def end(self, key: str, attempt: AttemptRef) -> Run | None:
        run = self.runs.get(key)
        assert attempt in self.pending, f"{attempt} ended twice, or was never assigned"
        del self.pending[attempt]
        if run is not None:
            assert not run.ended
            assert run.attempt == attempt
            run.ended = True
        return run

    def on_report(self, effect: effects.Report) -> None:
        assert effect.key not in self.undelivered
        self.undelivered[effect.key] = effect.attempt
        if "#stopped" in effect.key:
            assert effect.outcome == Outcome(stopped=True)
            return
        run = self.end(effect.key, effect.attempt)
        stop = run and run.stop
        assert stop is not StopCause.LEASE_LOST, "an attempt was reported whose lease is lost"
        assert stop is not StopCause.SERVICE or effect.outcome.stopped, "a stop was not confirmed"
        assert effect.outcome.stopped <= ("stop" in self.extensions)

    def on_release(self, effect: effects.Release) -> None:
        run = self.end(effect.key, effect.attempt)
        assert "return" in self.extensions
        assert run is None or run.stop is None, "a stopped job was released"

    def on_forget(self, effect: effects.Forget) -> None:
        run = self.end(effect.key, effect.attempt)
        assert run is None or run.stop in (None, effect.stopped_for)
        if effect.stopped_for is None:
            assert "return" not in self.extensions, "a job was lost that could be released"
        elif effect.stopped_for is StopCause.SERVICE:
            assert "stop" not in self.extensions, "a stop was not confirmed"
        else:
            assert effect.stopped_for is StopCause.LEASE_LOST

    def on_withdraw_take(self, effect: effects.WithdrawTake) -> None:
        assert effect.take_id in self.takes
        assert effect.take_id not in self.withdrawn, "a take was withdrawn twice"
        self.withdrawn.add(effect.take_id)

    def on_announce_drain(self, effect: effects.AnnounceDrain) -> None:
        assert not self.draining
        self.draining = True

    def on_exit(self, effect: effects.Exit) -> None:
        assert self.draining and not self.exited  # noqa: PT018
        assert effect.cut_off or not any(executor.jobs for executor in self.executors)
        self.exited = True

    # ---------------------------------------------------------------- the service

    def open_take(self, is_poll: bool) -> TakeRequest:
        self.number += 1
        request = TakeRequest(self.dispatcher.wanted(self.now), f"t{self.number}")
        self.takes[request.id] = request
        self.send(events.TakeSent(request, is_poll))
        return request

    def answer(self, request: TakeRequest, ids: list[str], timeout_s: float | None, broken: bool) -> None:
        jobs = []
        for job_id in ids:
            number = self.attempts[job_id] = self.attempts.get(job_id, 0) + 1
            error = "no input" if broken and job_id == "d" else None
            jobs.append(Assignment(id=job_id, body=b"{}", attempt=number, timeout_s=timeout_s, error=error))
            self.pending[AttemptRef(job_id, number, request.id)] = timeout_s
        self.send(events.Assigned(request.id, tuple(jobs)))

    @precondition(lambda self: not self.draining)
    @rule(ids=IDS, timeout_s=TIMEOUTS, broken=st.booleans(), starts=st.booleans())
    def take(self, ids: list[str], timeout_s: float | None, broken: bool, starts: bool) -> None:
        """Assign jobs, sometimes more than were asked for."""
        request = self.open_take(is_poll=True)
        del self.takes[request.id]
        self.answer(request, ids, timeout_s, broken)
        while starts and any(each.can_start for each in self.executors):
            self.start(next(i for i, each in enumerate(self.executors) if each.can_start))

    @precondition(lambda self: self.dispatcher.wanted(self.now) > 0)
    @rule(is_poll=st.booleans())
    def leave_a_take_open(self, is_poll: bool) -> None:
        self.open_take(is_poll)

    @precondition(lambda self: self.takes)
    @rule(data=st.data(), ids=IDS, timeout_s=TIMEOUTS)
    def answer_an_open_take(self, data: Any, ids: list[str], timeout_s: float | None) -> None:
        request = self.takes.pop(data.draw(st.sampled_from(sorted(self.takes))))
        self.answer(request, ids, timeout_s, broken=False)

    @precondition(lambda self: self.takes)
    @rule(data=st.data())
    def lose_take(self, data: Any) -> None:
        request = self.takes.pop(data.draw(st.sampled_from(sorted(self.takes))))
        result = self.send(events.TakeLost(request.id))
        assert bool(result) == ("return" in self.extensions)

    @rule(job_id=st.sampled_from(JOBS), back=st.sampled_from([0, 0, 1, 2]))
    def request_stop(self, job_id: str, back: int) -> None:
        number = None if back == 2 else max(1, self.attempts.get(job_id, 0) - back)
        known = job_id in self.dispatcher.attempts()
        result = self.send(events.StopRequested(AttemptRef(job_id, number)))
        if not known and "stop" in self.extensions:
            confirmed = [ref for ref in self.undelivered.values() if ref[:2] == (job_id, number)]
            assert confirmed, "the stop of an attempt that was never seen was not confirmed"
        assert known or not [effect for effect in result if isinstance(getattr(effect, "message", None), messages.Stop)]

    @precondition(lambda self: self.undelivered)
    @rule(data=st.data())
    def deliver(self, data: Any) -> None:
        self.undelivered.pop(key := data.draw(st.sampled_from(sorted(self.undelivered))))
        assert self.send(events.Delivered(key, 0.01)) == []

    @precondition(lambda self: any(each.running() for each in self.executors))
    @rule(data=st.data(), listed=st.booleans())
    def lose_lease(self, data: Any, listed: bool) -> None:
        run = data.draw(st.sampled_from([run for each in self.executors for run in each.running()]))
        leased = frozenset(attempts := self.dispatcher.attempts()) - {run.attempt.job_id}
        self.send(events.LeasesListed(attempts, leased) if listed else events.LeaseLost(run.key))
        assert run.stop is not None or run.ended

    # ---------------------------------------------------------------- the executors

    def choose(self, data: Any, suits: Callable[[Executor], object]) -> int:
        return int(data.draw(st.sampled_from([i for i, each in enumerate(self.executors) if suits(each)])))

    @precondition(lambda self: any(each.state == "loading" for each in self.executors))
    @rule(data=st.data(), slots=st.integers(1, 2), timeout_s=st.sampled_from([None, 3.0]))
    def load(self, data: Any, slots: int, timeout_s: float | None) -> None:
        self.become_ready(self.choose(data, lambda each: each.state == "loading"), slots, timeout_s)

    def become_ready(self, number: int, slots: int, timeout_s: float | None) -> None:
        self.executors[number].state, self.executors[number].slots = "ready", slots
        self.send(events.Received(number, messages.Ready("function", slots, 0.0, "cpu", None, timeout_s)))

    @precondition(lambda self: any(each.can_start for each in self.executors))
    @rule(data=st.data())
    def start_a_job(self, data: Any) -> None:
        self.start(self.choose(data, lambda each: each.can_start))

    def start(self, number: int) -> None:
        """Start the next job, unless it was revoked or stopped before it began."""
        run = self.executors[number].waiting()[0]
        if run.stop is None and not run.revoking:
            run.started = True
            self.send(events.Received(number, messages.Started(run.key, self.now)))
            return
        del self.executors[number].jobs[run.key]
        if run.stop is None:
            self.send(events.Received(number, messages.Done(key=run.key, revoked=True)))
        else:
            self.send(events.Received(number, messages.Done(key=run.key, stopped=True)))

    @precondition(lambda self: any(each.running() for each in self.executors))
    @rule(data=st.data(), streams=st.booleans())
    def work(self, data: Any, streams: bool) -> None:
        number = self.choose(data, lambda each: each.running())
        run = data.draw(st.sampled_from(self.executors[number].running()))
        if streams and run.stop is None:
            self.stream(number, run)
            return
        del self.executors[number].jobs[run.key]
        self.send(events.Received(number, messages.Done(b"1", key=run.key, stopped=run.stop is not None)))

    @precondition(lambda self: any(each.state != "absent" for each in self.executors))
    @rule(data=st.data(), reloads=st.booleans())
    def exit_executor(self, data: Any, reloads: bool) -> None:
        killed = any(each.state == "killed" for each in self.executors)
        number = self.choose(data, lambda each: each.state == "killed" if killed else each.state != "absent")
        self.end_process(number)
        if reloads and self.executors[number].state == "loading":
            self.become_ready(number, slots=2, timeout_s=None)

    def end_process(self, number: int) -> None:
        executor, self.executors[number] = self.executors[number], Executor()
        killed_for = "it did not stop" if executor.state == "killed" else None
        for run in executor.jobs.values():
            run.executors_lost += killed_for is not None or not run.started
        self.send(events.ExecutorExited(number, ExitReport(how="died", exit_code=1, killed_for=killed_for)))

    @precondition(lambda self: any(each.running() for each in self.executors))
    @rule(data=st.data(), others_stream=st.booleans())
    def refuse_to_stop(self, data: Any, others_stream: bool) -> None:
        """Keep a stopped job running until its process is killed."""
        number = self.choose(data, lambda each: each.running())
        stubborn = data.draw(st.sampled_from([run.key for run in self.executors[number].running()]))
        for run in self.executors[number].running():
            if run.key == stubborn:
                self.send(events.StopRequested(run.attempt))
            elif others_stream and run.stop is None:
                self.stream(number, run)
        self.wait(STOP_GRACE_S)
        if self.executors[number].state == "killed":
            self.end_process(number)

    def stream(self, number: int, run: Run) -> None:
        run.streamed = True
        self.send(events.Streamed(run.key))

    # ---------------------------------------------------------------- time and the end

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0, 30.0]))
    def wait(self, seconds: float) -> None:
        """Let time pass; each deadline on the way is kept."""
        until = self.now + seconds
        for _ in range(50):
            deadline = self.dispatcher.next_deadline()
            if deadline is None or deadline > until:
                break
            self.now = max(self.now, deadline)
            self.send(events.Tick())
        else:
            raise AssertionError("the deadlines do not end")
        self.now = until

    @rule(number=st.integers(0, 1), slots=st.integers(1, 3), full=st.sampled_from([False, False, True]))
    def change_slots_and_room_for_reports(self, number: int, slots: int, full: bool) -> None:
        self.full = full
        self.send(events.ReportsFull(full))
        if number < len(self.executors) and self.executors[number].state == "ready":
            self.executors[number].slots = slots
            self.send(events.Received(number, messages.SlotsChanged(slots)))

    @precondition(lambda self: self.number > 3)
    @rule(force=st.sampled_from([False, False, True]))
    def drain(self, force: bool) -> None:
        """Drain while takes are open: their jobs come late."""
        while self.dispatcher.wanted(self.now) > 0:
            self.open_take(is_poll=True)
        self.send(events.Drain(0, "a signal"))
        if force:
            self.send(events.GraceOver())
            assert self.exited

    # ---------------------------------------------------------------- what holds

    @invariant()
    def numbers_are_sound(self) -> None:
        deadline = self.dispatcher.next_deadline()
        assert deadline is None or deadline >= self.now, "a deadline in the past"
        assert 0 <= self.dispatcher.wanted(self.now) <= 100
        assert not (self.draining and self.dispatcher.wanted(self.now))
        for executor in self.dispatcher._executors:
            assert executor.free >= 0
            assert not executor.running.keys() & executor.waiting.keys()

    @invariant()
    def an_idle_worker_takes_jobs(self) -> None:
        idle = not any(each.jobs for each in self.executors) and any(each.state == "ready" for each in self.executors)
        if idle and not (self.takes or self.full or self.draining):
            assert self.dispatcher.wanted(self.now) > 0, "an idle worker takes no jobs"

    @invariant()
    def every_held_job_is_listed(self) -> None:
        held = {ref.job_id for ref in self.pending}
        stopping = {run.attempt for run in self.runs.values() if run.stop is not None}
        reported = {ref.job_id for ref in self.undelivered.values()}
        listed = set(self.dispatcher.attempts())
        assert {ref.job_id for ref in self.pending.keys() - stopping} <= listed <= held | reported

    @invariant()
    def stops_and_timeouts_end(self) -> None:
        ticks_now = self.dispatcher.next_deadline() == self.now
        for executor in [] if ticks_now else self.executors:
            for run in executor.jobs.values():
                if executor.state == "ready" and not self.exited:
                    assert run.stop is None or self.now <= run.stop_at + STOP_GRACE_S + 1e-6, "a stop does not end"
                    overdue = run.timeout_at is not None and self.now > run.timeout_at + EXECUTOR_FIRST_S + 1e-6
                    assert run.stop is not None or not overdue, "a job runs beyond its time"

    def teardown(self) -> None:
        """Let everything end: each assigned attempt then has ended once."""
        self.send(events.Drain(0, "the end of the test"))
        self.wait(GRACE_S + 1)
        assert self.exited, "the worker does not exit"
        for request in list(self.takes.values()):
            self.send(events.Assigned(request.id, ()))
        assert self.pending == {}, "an assigned attempt never ended"
        for key in list(self.undelivered):
            self.send(events.Delivered(key))
        assert self.dispatcher.attempts() == {}


@pytest.fixture(scope="session")
def worker_machine() -> type[WorkerMachine]:
    return WorkerMachine
