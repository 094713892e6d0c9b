"""What happens to each job between take and delivery: runs, stops, deaths of executors, ways back.

Nothing in here waits: it is called when something happened, and says what follows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from runpod_worker.core.dispatch.values import Assignment, AttemptRef
from runpod_worker.core.prefetch import PrefetchEstimator
from runpod_worker.log import log
from runpod_worker.worker.agent.executors import Bench
from runpod_worker.worker.agent.outbox import Outbox
from runpod_worker.worker.agent.outcome import STOPPED, Startup, error_body, result_body, timings_json
from runpod_worker.worker.agent.slots import Held, Why, assigned
from runpod_worker.worker.ipc.messages import (
    Chunks,
    Done,
    File,
    FileFailed,
    LoadFailed,
    Progress,
    Ready,
    Revoke,
    Run,
    SlotsChanged,
    Started,
    Stop,
    ToAgent,
)
from runpod_worker.worker.link.port import Link

EXECUTOR_FIRST_S = 0.25
"""How much later than an executor the agent notices a timeout: the one that can stop the handler gently goes first."""

RUNS_LOST = 2
"""So many executors may die under a job that had not started; then the job is taken for the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """What the jobs need from the agent."""

    changed: Callable[[], None]
    """A slot or a job came or went."""
    give_back: Callable[[Sequence[AttemptRef]], None]
    leave: Callable[[int, str], None]
    """Drain and exit with this code, for this reason."""


class Holding:
    """Every job this worker holds."""

    def __init__(
        self,
        link: Link,
        outbox: Outbox,
        capacity: PrefetchEstimator,
        benches: Sequence[Bench],
        outside: Outside,
        *,
        stop_grace_s: float,
        started_at: float,
        now: Callable[[], float],
    ) -> None:
        self._link = link
        self._outbox = outbox
        self._capacity = capacity
        self._benches = benches
        self._outside = outside
        self._stop_grace_s = stop_grace_s
        self._startup: Startup | None = None
        self._startup_told = False
        self._started_at = started_at
        self._now = now
        self._jobs: dict[str, Held] = {}
        self._homeless: list[Held] = []
        self._keys = 0
        self._leaving = False

    # ---------------------------------------------------------------- taken

    def received(self, found: Assignment, take: str) -> None:
        """A job was handed over, by a request of this name."""
        known = self._jobs.get(found.id)
        if known is not None and self._goes_on(known, found, take):
            return
        self._keys += 1
        job = assigned(found, f"{found.id}#{self._keys}", self._now(), take)
        self._jobs[job.job_id] = job
        log.debug("job.taken", extra={"job": job.job_id, "attempt": job.attempt})
        if found.error is not None:
            log.error("job.unusable", extra={"job": job.job_id, "error": found.error})
            self._outbox.finish(job, error_body(found.error))
        elif self._leaving and self._returns:
            self._give_back(job)
        else:
            self._dispatch(job)

    def delivered(self, job: Held) -> None:
        """Nothing more is to be said about the job."""
        if self._jobs.get(job.job_id) is job and not any(job.key in one.slots.jobs for one in self._benches):
            del self._jobs[job.job_id]
        self._outside.changed()

    def _goes_on(self, known: Held, found: Assignment, take: str) -> bool:
        """The service lost sight of a job that is held here, and handed it out once more: to us, of all workers.

        What runs, or has run, then counts as the new attempt. False: it cannot, and the job has to run anew, because
        it is being stopped, or because the service has dropped the chunks of the old attempt.
        """
        log.warning("job.taken_again", extra={"job": found.id, "held": known.attempt, "attempt": found.attempt})
        if known.stop is None and (not known.streamed or found.attempt is None):
            known.attempt, known.take = found.attempt, take
            known.handed += 1
            return True
        self.lost(known)
        return False

    def _dispatch(self, job: Held) -> None:
        ready = [bench for bench in self._benches if bench.ready is not None]
        if not ready:
            self._homeless.append(job)
            return
        bench = max(ready, key=self._room)
        job.bench = bench
        bench.slots.add(job)
        bench.post(Run(job.key, job.body, job.taken_at, job.timeout_s, self._link.files_url))
        if job.timeout_s is not None:
            left = job.taken_at + job.timeout_s - self._now()
            self._arm(job, left + EXECUTOR_FIRST_S, self._timed_out, job, Why.TIMEOUT)
        if not job.had_free_slot and self._returns:
            self._watch_hostage(bench, job)

    def _room(self, bench: Bench) -> int:
        slots = bench.slots
        return self._capacity.jobs_wanted(slots.free, slots.elapsed(self._now())) - slots.waiting

    # ---------------------------------------------------------------- heard from an executor

    def hear(self, bench: Bench, frame: ToAgent) -> None:
        """An executor said something."""
        match frame:
            case Done():
                self._done(bench, frame)
            case Started():
                self._entered(bench, frame)
            case Ready():
                self._ready(bench, frame)
            case LoadFailed():
                bench.load_error, bench.failed_check = frame.error, frame.check
            case SlotsChanged():
                bench.slots.count = frame.slots
                self._outside.changed()
            case Chunks() | Progress() | File() | FileFailed():
                job = bench.slots.jobs.get(frame.key)
                if job is None:  # encoded after the slot was free: the job is in its delivery
                    job = next((one for one in self._outbox.jobs() if one.key == frame.key), None)
                if job is not None and job.stop is None:
                    self._outbox.hear(job, frame)

    def _ready(self, bench: Bench, ready: Ready) -> None:
        bench.ready = ready
        bench.slots.count = ready.slots
        about = {"slots": ready.slots, "device": ready.device, "load_s": round(ready.load_s, 3)}
        log.debug("executor.ready", extra=about)
        if self._startup is None:
            self._startup = Startup(load_s=ready.load_s, startup_s=self._now() - self._started_at)
        homeless, self._homeless = self._homeless, []
        for job in homeless:
            self._dispatch(job)
        self._outside.changed()

    def _entered(self, bench: Bench, frame: Started) -> None:
        job = bench.slots.started(frame.key, frame.at)
        if job is None or bench.ready is None:
            return
        if bench.ready.timeout_s is not None:
            self._arm(job, bench.ready.timeout_s + EXECUTOR_FIRST_S, self._timed_out, job, Why.HANDLER_TIMEOUT)
        self._outside.changed()

    def _done(self, bench: Bench, done: Done) -> None:
        job = bench.slots.ended(done.key)
        if job is None:
            return
        self._learn(job, done)
        if done.revoked:
            self._give_back(job)
        elif job.stop is not None:
            self._stopped(job, done.error)
        else:
            self._finish(job, bench, done)
        self._outside.changed()
        if done.refresh or (bench.ready is not None and bench.ready.refresh):
            self._outside.leave(0, "the handler asked for a new worker")

    def _learn(self, job: Held, done: Done) -> None:
        if done.revoked or job.started_at is None:
            return
        ended = done.timings.finished if done.timings is not None else self._now()
        self._capacity.add_duration(ended - job.started_at)
        if job.had_free_slot and done.timings is not None:
            self._capacity.add_preparation(max(0.0, done.timings.input_ready - job.taken_at))

    def _finish(self, job: Held, bench: Bench, done: Done) -> None:
        error = "the handler was stopped" if done.stopped and done.error is None else done.error
        refresh = done.refresh or (bench.ready is not None and bench.ready.refresh)
        body = result_body(done.output, error, refresh, self._timings(job, done))
        self._outbox.finish(job, body, is_stream=done.is_stream, files=done.files)

    def _timings(self, job: Held, done: Done) -> bytes | None:
        if "timings" not in self._link.extensions:
            return None
        startup = None if self._startup_told else self._startup
        self._startup_told = True
        return timings_json(done.timings, job.taken_at, startup)

    # ---------------------------------------------------------------- stops

    def stop(self, named: AttemptRef) -> bool:
        """The service wants the attempt to stop. False: it is being stopped, or delivered, already, or not held."""
        job = self._jobs.get(named.job_id)
        if job is None or named.number not in (None, job.attempt):
            if "stop" in self._link.extensions:  # never seen, or ended: either way its slot is free
                gone = f"{named.job_id}#gone{named.number or ''}"
                self._outbox.finish(Held(gone, named.job_id, named.number, b"", self._now()), STOPPED)
            return False
        if job.stop is not None or job.bench is None or job.key not in job.bench.slots.jobs:
            return False
        self._give_up(job, Why.SERVICE)
        return True

    def lost(self, job: Held) -> None:
        """The service does not count on this attempt any more."""
        if job.bench is not None and job.key in job.bench.slots.jobs and job.stop is None:
            self._give_up(job, Why.LOST)

    def _timed_out(self, job: Held, why: Why) -> None:
        if job.stop is None:
            self._give_up(job, why)

    def _give_up(self, job: Held, why: Why) -> None:
        log.info("job.stopping", extra={"job": job.job_id, "reason": str(why)})
        job.stop = why
        self._outbox.drop(job)
        assert job.bench is not None  # noqa: S101 - callers have looked
        job.bench.post(Stop(job.key, str(why)))
        reason = f"job {job.job_id} did not stop within {self._stop_grace_s:g} s: {why}"
        self._arm(job, self._stop_grace_s, job.bench.kill, reason)

    def _stopped(self, job: Held, error: str | None = None) -> None:
        """The slot of a job that was to stop is free."""
        log.info("job.stopped", extra={"job": job.job_id, "reason": str(job.stop)})
        if job.stop in (Why.TIMEOUT, Why.HANDLER_TIMEOUT):
            self._outbox.finish(job, error_body(error or str(job.stop)))
        elif job.stop is Why.SERVICE and "stop" in self._link.extensions:
            self._outbox.finish(job, STOPPED)
        else:
            self._forget(job)

    def _arm(self, job: Held, delay_s: float, call: Callable[..., None], *args: object) -> None:
        job.timers.append(asyncio.get_running_loop().call_later(max(0.0, delay_s), call, *args))

    # ---------------------------------------------------------------- an executor died

    def bury(self, bench: Bench, how: str, last_lines: str) -> None:
        """The bench's process is gone: what ran has failed, what waited runs elsewhere."""
        was_killed = bench.killed_for is not None
        bench.ready = None
        for job in bench.slots.clear():
            if job.stop is not None:
                self._stopped(job)
            elif job.started_at is None or was_killed:
                self._run_elsewhere(job, how)
            else:
                text = f"the handler's process {how} while the job ran"
                log.error("job.process_died", extra={"job": job.job_id, "how": how})
                self._fail(job, text + (f"; its last lines:\n{last_lines}" if last_lines else ""))
        self._outside.changed()

    def _run_elsewhere(self, job: Held, how: str) -> None:
        job.runs_lost += 1
        if job.runs_lost >= RUNS_LOST:
            self._fail(job, f"the handler's process {how} each time it was given this job")
        elif self._returns or self._leaving:
            self._give_back(job)
        elif job.streamed:
            self._fail(job, f"the handler's process {how}, and what the job had streamed cannot be taken back")
        else:
            job.started_at, job.key = None, f"{job.key}'"
            self._dispatch(job)

    def _fail(self, job: Held, error: str) -> None:
        self._outbox.drop(job)
        self._outbox.finish(job, error_body(error))

    # ---------------------------------------------------------------- ways back

    @property
    def _returns(self) -> bool:
        return "return" in self._link.extensions

    def leave(self) -> None:
        """Hand back what has not started, and whatever comes from now on. Where that is not agreed, it is still run."""
        self._leaving = True
        if self._returns or not any(bench.ready for bench in self._benches):
            homeless, self._homeless = self._homeless, []
            for job in homeless:
                self._give_back(job)
        if not self._returns:
            return
        for bench in self._benches:
            for job in list(bench.slots.not_started()):
                self._ask_back(bench, job)

    def abandon(self) -> bool:
        """The grace is over: give back whatever still runs. False: nothing does."""
        jobs = self._homeless + [job for bench in self._benches for job in bench.slots.clear()]
        self._homeless = []
        for job in jobs:
            if job.stop is not None:
                self._stopped(job)
            else:
                self._give_back(job)
        return bool(jobs)

    def names(self) -> list[str]:
        """The ids of all jobs that are held or undelivered."""
        return list(self._jobs)

    @property
    def working(self) -> bool:
        """Whether any job waits or runs."""
        return bool(self._homeless) or any(bench.slots.jobs for bench in self._benches)

    def _ask_back(self, bench: Bench, job: Held) -> None:
        if not job.leaving and job.stop is None:
            job.leaving = True
            bench.post(Revoke(job.key))

    def _give_back(self, job: Held) -> None:
        self._forget(job)
        if self._returns:
            log.info("job.returned", extra={"job": job.job_id, "attempt": job.attempt})
            self._outside.give_back([job.named])
        else:  # nothing can be said about it: its lease ends, and another worker gets it
            log.warning("job.abandoned", extra={"job": job.job_id})

    def _forget(self, job: Held) -> None:
        self._outbox.drop(job)
        job.disarm()
        if self._jobs.get(job.job_id) is job:  # else it was handed over anew meanwhile
            del self._jobs[job.job_id]

    def _watch_hostage(self, bench: Bench, job: Held) -> None:
        """Give the job back if those before it turn out to be long ones: another worker may be free."""
        now = self._now()
        rest = max((self._capacity.outlier_s - elapsed for elapsed in bench.slots.elapsed(now)), default=None)
        if rest is not None:
            self._arm(job, rest, self._free_hostage, bench, job)

    def _free_hostage(self, bench: Bench, job: Held) -> None:
        if job.started_at is not None or job.leaving:
            return
        rests = [self._capacity.outlier_s - elapsed for elapsed in bench.slots.elapsed(self._now())]
        if bench.slots.free or not rests:
            return
        if max(rests) > 0:
            self._arm(job, max(rests), self._free_hostage, bench, job)
        else:
            log.info("job.hostage", extra={"job": job.job_id})
            self._ask_back(bench, job)
