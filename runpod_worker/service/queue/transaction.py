"""Decisions that become durable together: decide, decide, commit.

1. A decision takes effect in memory at once, and raises at once. Nothing here waits except `commit`.
2. `commit` writes all decisions as one unit. Callers and workers are told after it, by the waiters or by its return.
3. A transaction with decisions must be committed, whatever happens after them: until then memory is ahead of the
   journal.
4. If the commit fails, `Jobs` has read the jobs again from the journal by the time the error is raised.
"""

from __future__ import annotations

from runpod_worker.core.errors import IllegalTransition, JobNotFound, StaleAttempt
from runpod_worker.core.job import Job, Status
from runpod_worker.core.lifecycle import Event, apply
from runpod_worker.service.journal.port import (
    ChunkRecord,
    Delivery,
    EndedJob,
    ForgetRecord,
    JobRecord,
    Written,
)
from runpod_worker.service.queue.index import counter_delta
from runpod_worker.service.queue.jobs import Jobs, Step


class Transaction:
    """Changes jobs. `committed` tells whether `commit` has succeeded."""

    def __init__(self, jobs: Jobs) -> None:
        self.committed = False
        self._jobs = jobs
        self._steps: list[Step] = []

    def add(self, job: Job, request: bytes) -> None:
        """Add a new job, in any status: it may have been taken already.

        Raises:
            ValueError: a job of this id exists.
        """
        seq = self._jobs.index.add(job)
        delivery, delta = _owed_delivery(None, job), counter_delta(None, job)
        self._steps.append(Step(JobRecord(seq=seq, job=job, request=request, delivery=delivery, delta=delta)))

    def apply(self, job_id: str, event: Event, *, output: bytes | None = None) -> Job:
        """Return the job as it is after `event`; `output` is kept beside it.

        Raises:
            JobNotFound: there is no such job.
            StaleAttempt: a worker reports on an attempt it does not hold.
            IllegalTransition: the job's status does not allow the event.
        """
        old, seq = self._jobs.get(job_id), self._jobs.index.seq(job_id)
        if old is None or seq is None:
            raise JobNotFound
        new = apply(old, event)
        if new.final and new.stop:
            output = None  # the caller was promised a stopped job
        moved = new.status is not old.status and old.status is not Status.IN_QUEUE
        self._jobs.index.put(new)
        record = JobRecord(
            seq=seq,
            job=new,
            output=output,
            drops_output=moved and output is None,
            drops_chunks=old.final,
            chunk_base=self._restart_chunks(old, new, seq) if moved else None,
            delivery=_owed_delivery(old, new),
            drops_delivery=old.final,
            delta=counter_delta(old, new),
        )
        self._steps.append(Step(record, old, event))
        return new

    def try_apply(self, job_id: str, event: Event) -> Job | None:
        """As `apply`; None if the job has moved on and the event does not matter any more."""
        try:
            return self.apply(job_id, event)
        except (JobNotFound, StaleAttempt, IllegalTransition):
            return None

    def rewrite(self, job: Job) -> None:
        """Write the job once more as it is: a durable commit brings all that was written before it to the disk."""
        seq = self._jobs.index.seq(job.id)
        if seq is None:
            raise JobNotFound
        self._steps.append(Step(JobRecord(seq=seq, job=job), old=job))

    def add_chunks(self, job_id: str, chunks: list[bytes], index: int | None) -> int:
        """Add chunks of the running attempt, from its chunk `index` on (None: behind the others). Those already here
        are dropped. Returns how many chunks the job has once all that were given are written.

        Raises:
            JobNotFound: there is no such job.
        """
        seq = self._jobs.seq(job_id)
        if seq is None:
            raise JobNotFound
        start, fresh = self._jobs.logs.add(seq, chunks, index)
        if fresh:
            record = ChunkRecord(seq=seq, job_id=job_id, start=start, chunks=fresh)
            self._steps.append(Step(record, log=self._jobs.logs.of(seq)))
        return start + len(fresh)

    def change_delivery(self, job_id: str, delivery: Delivery | None) -> None:
        """Replace the webhook that the job owes; None: it is not owed any more.

        Raises:
            JobNotFound: there is no such job.
        """
        job, seq = self._jobs.get(job_id), self._jobs.index.seq(job_id)
        if job is None or seq is None:
            raise JobNotFound
        self._steps.append(
            Step(JobRecord(seq=seq, job=job, delivery=delivery, drops_delivery=delivery is None), old=job)
        )

    def forget(self, ended: EndedJob) -> None:
        """Delete a job that has ended, with all it has."""
        self._jobs.logs.drop(ended.seq)
        self._jobs.index.drop(ended.job_id)
        self._steps.append(Step(ForgetRecord(seq=ended.seq, job_id=ended.job_id, ended_at=ended.ended_at)))

    async def commit(self, *, durable: bool = True) -> None:
        """Write the decisions. Returns once they survive the death of this process, and a power cut if `durable`.

        Raises:
            StoreUnavailable: they were not written; memory is as the journal has it.
        """
        if not self._steps:
            self.committed = True
            return
        written = self._jobs.journal.append([step.record for step in self._steps], durable=durable)
        if written.done():
            self._on_written(written)
        else:
            self._jobs.track(written, [step.record.job_id for step in self._steps])
            written.add_done_callback(self._on_written)  # it runs even if the task that commits is cancelled
        await written

    def _on_written(self, written: Written) -> None:
        self._jobs.untrack(written, [step.record.job_id for step in self._steps])
        if written.exception() is None:
            self.committed = True
            for step in self._steps:
                self._jobs.on_committed(step)

    def _restart_chunks(self, old: Job, new: Job, seq: int) -> int | None:
        """A job that ended starts anew, one that lost its attempt goes on behind the chunks it has."""
        if old.final:
            self._jobs.logs.reset(seq)
            return 0
        return self._jobs.logs.restart(seq) if new.status is Status.IN_QUEUE else None


def _owed_delivery(old: Job | None, new: Job) -> Delivery | None:
    """Return the webhook that the end of the job makes due at once."""
    if new.ended_at is None or not new.webhook or (old is not None and old.final):
        return None
    return Delivery(job_id=new.id, url=new.webhook, tries=0, next_at=new.ended_at)
