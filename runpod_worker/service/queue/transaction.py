"""Decisions that become durable together: decide, decide, commit.

1. A decision takes effect in memory, or raises, immediately. Only `commit` waits.
2. `commit` writes all decisions as one unit. Afterwards it returns and notifies the waiters.
3. A transaction with decisions must be committed in every case. Until then memory is ahead of the journal.
4. If the commit fails, `Jobs` reads the jobs again from the journal before the error is raised.
"""

from __future__ import annotations

from runpod_worker.core.errors import IllegalTransition, JobNotFound, StaleAttempt
from runpod_worker.core.job import Job, Status
from runpod_worker.core.lifecycle import Event, apply
from runpod_worker.log import log
from runpod_worker.service.journal.port import (
    ChunkRecord,
    Delivery,
    EndedJob,
    ForgetRecord,
    JobRecord,
    Total,
    Written,
)
from runpod_worker.service.queue.jobs import Jobs, Step


class Transaction:
    """Changes jobs. `committed` is true after a successful `commit`."""

    def __init__(self, jobs: Jobs) -> None:
        self.committed = False
        self._jobs = jobs
        self._steps: list[Step] = []

    def add(self, job: Job, request: bytes) -> None:
        """Add a new job, in any status; an open take may have taken it already.

        Raises:
            ValueError: a job with this id exists.
        """
        seq = self._jobs.index.add(job)
        delivery, adds_to = _due_delivery(None, job), _grown_total(None, job)
        self._steps.append(Step(JobRecord(seq=seq, job=job, request=request, delivery=delivery, adds_to=adds_to)))

    def apply(self, job_id: str, event: Event, *, output: bytes | None = None) -> Job:
        """Apply `event` to the job, store its `output`, and return the new version.

        Raises:
            JobNotFound: the job does not exist.
            StaleAttempt: the worker does not hold this attempt.
            IllegalTransition: the job's status does not allow the event.
        """
        old, seq = self._find(job_id)
        new = apply(old, event)
        if new.final and new.stop:
            output = None  # a stopped job has no output
        moved = new.status is not old.status and old.status is not Status.IN_QUEUE
        record = JobRecord(
            seq=seq,
            job=new,
            output=output,
            drops_output=moved and output is None,
            chunk_base=self._restart_chunks(old, new) if moved else None,
            delivery=_due_delivery(old, new),
            drops_delivery=old.final,
            adds_to=_grown_total(old, new),
        )
        self._jobs.index.put(new)  # after the reads of the journal for the record, which may fail
        self._steps.append(Step(record, old, event))
        return new

    def try_apply(self, job_id: str, event: Event) -> Job | None:
        """Like `apply`, but return None if the event no longer applies to the job."""
        try:
            return self.apply(job_id, event)
        except (JobNotFound, StaleAttempt, IllegalTransition):
            return None

    def rewrite(self, job_id: str, *, delivery: Delivery | None = None, drops_delivery: bool = False) -> None:
        """Write the job again unchanged, and replace or remove the delivery of its webhook.

        A durable commit also makes all earlier writes durable.

        Raises:
            JobNotFound: the job does not exist.
        """
        job, seq = self._find(job_id)
        record = JobRecord(seq=seq, job=job, delivery=delivery, drops_delivery=drops_delivery)
        self._steps.append(Step(record, old=job))

    def add_chunks(self, job_id: str, chunks: list[bytes], index: int | None) -> int:
        """Add chunks of the running attempt, starting with its chunk `index` (None: append). Drops chunks that it has.

        Returns the number of chunks of the job once these are written.

        Raises:
            JobNotFound: the job does not exist.
        """
        _, seq = self._find(job_id)
        start, fresh = self._jobs.logs.add(job_id, chunks, index)
        if fresh:
            record = ChunkRecord(seq=seq, job_id=job_id, start=start, chunks=fresh)
            self._steps.append(Step(record, log=self._jobs.logs.of(job_id)))
        return start + len(fresh)

    def forget(self, ended: EndedJob) -> None:
        """Delete an ended job with its bodies and chunks."""
        self._jobs.logs.drop(ended.job_id)
        self._jobs.index.drop(ended.job_id)
        self._steps.append(Step(ForgetRecord(seq=ended.seq, job_id=ended.job_id, ended_at=ended.ended_at)))

    async def commit(self, *, durable: bool = True) -> None:
        """Write the decisions, and return once they survive the death of this process, and a power cut if `durable`.

        Raises:
            StoreUnavailable: the write failed; memory is again equal to the journal.
        """
        if not self._steps:
            self.committed = True
            return
        written = self._jobs.journal.append([step.record for step in self._steps], durable=durable)
        if written.done():
            self._on_written(written)
        else:
            self._jobs.track(written, [step.record.job_id for step in self._steps])
            written.add_done_callback(self._on_written)  # runs even if the committing task is cancelled
        await written

    def _on_written(self, written: Written) -> None:
        self._jobs.untrack(written, [step.record.job_id for step in self._steps])
        if written.exception() is None:
            self.committed = True
            for step in self._steps:
                try:
                    self._jobs.on_committed(step)
                except Exception:  # the other jobs of the transaction are published
                    log.exception("entry.failed", extra={"loop": "publish", "job": step.record.job_id})

    def _find(self, job_id: str) -> tuple[Job, int]:
        job, seq = self._jobs.get(job_id), self._jobs.index.seq(job_id)
        if job is None or seq is None:
            raise JobNotFound
        return job, seq

    def _restart_chunks(self, old: Job, new: Job) -> int | None:
        """Return the number of the next attempt's first chunk: 0 for a retry, else after the lost attempt's chunks."""
        if old.final:
            self._jobs.logs.reset(old.id)
            return 0
        return self._jobs.logs.restart(old.id) if new.status is Status.IN_QUEUE else None


def _grown_total(old: Job | None, new: Job) -> Total | None:
    """Return the endpoint's total to which this change adds one."""
    if old is None or new.status is not old.status:
        if new.status is Status.COMPLETED:
            return "completed"
        if new.status is Status.FAILED:
            return "failed"
    return "retried" if old is not None and new.retries > old.retries else None


def _due_delivery(old: Job | None, new: Job) -> Delivery | None:
    """Return the delivery of the webhook if the job has just ended and has one."""
    if new.ended_at is None or not new.webhook or (old is not None and old.final):
        return None
    return Delivery(job_id=new.id, url=new.webhook, tries=0, next_at=new.ended_at)
