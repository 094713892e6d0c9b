"""The store for one machine: memory is the index, SQLite is the log.

Every job that has not ended is in memory, so rules are decided there; jobs that ended are read back when asked for.
A write is decided in memory, written by the thread of `log.py`, and undone in memory when it cannot be written.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from runpod_worker.core.errors import JobNotFound, StoreUnavailable
from runpod_worker.core.job import Job
from runpod_worker.service.journal.cache import HotBodies, Stream, Streams
from runpod_worker.service.journal.database import Batch, DatabaseSink, Value, decode_job, open_file
from runpod_worker.service.journal.port import HOLD_S, Counts, Delivery
from runpod_worker.service.journal.writer import Log, Write
from runpod_worker.service.queue.index import JobIndex, Outbox, Tally, check_gap, first_delivery, postponed, tally

RECENT_JOBS = 10_000
"""So many jobs that ended stay in memory, for the callers who come to see the result."""

FORGET_JOBS = 200
"""So many jobs are deleted in one transaction: callers wait for no more than that."""

_DELIVERY_PUT = "INSERT OR REPLACE INTO deliveries VALUES (?, 0, ?)"
_DELIVERY_DROP = "DELETE FROM deliveries WHERE seq = ?"
_DELIVERY_SETTLE = "DELETE FROM deliveries WHERE seq = ? AND tries = ? AND next_at = ?"
_DELIVERY_POSTPONE = "UPDATE deliveries SET tries = ?, next_at = ? WHERE seq = ? AND tries = ? AND next_at = ?"
_FORGETTABLE = (
    "SELECT seq, id, ended_at FROM jobs WHERE sync = ? AND ended_at < ? "
    "AND NOT EXISTS (SELECT 1 FROM deliveries WHERE deliveries.seq = jobs.seq) ORDER BY ended_at LIMIT ?"
)


class SqliteStore:
    """`Store` on one SQLite file.

    Opening reads the jobs that have not ended and may take a moment: open it before the event loop serves anybody.

    Args:
        path: the file; it is made, with its folder, when it is not there.
        recent_jobs: so many jobs that ended stay in memory (at least 1).

    Raises:
        StoreUnavailable: another process has the file, a newer release wrote it, or it cannot be read.
    """

    def __init__(self, path: Path | str, *, recent_jobs: int = RECENT_JOBS) -> None:
        with ExitStack() as files:
            writer, self._reading, self._glance = open_file(Path(path), files)
            self._files = files.pop_all()
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="store-reader")
        self._log: Log[Batch] = Log(DatabaseSink(writer))
        self._index = JobIndex()
        self._outbox = Outbox()
        self._hot = HotBodies()
        self._streams = Streams(self._count_chunks)
        self._recent_jobs = max(1, recent_jobs)
        self._recent: OrderedDict[str, None] = OrderedDict()
        self._going: set[str] = set()
        self._forgetting = asyncio.Lock()
        self._load()

    async def add(self, job: Job, request: bytes, *, durable: bool = True) -> None:
        new_endpoint = not self._index.knows(job.endpoint)
        seq, step = self._index.add(job), tally(None, job)
        self._index.count(job.endpoint, step)

        def merge(batch: Batch) -> None:
            batch.requests[seq] = request
            if new_endpoint:
                batch.count(job.endpoint, Tally())
            _merge_job(batch, seq, None, job)

        def commit() -> None:
            self._hot.put(("requests", seq), request)
            self._hot.put(("outputs", seq), None)
            self._ended(None, job)

        def undo() -> None:
            self._index.drop(job.id)
            self._index.count(job.endpoint, step, -1)

        try:
            write = Write(job.id, merge, commit=commit, undo=undo, durable=durable, size=len(request))
            await self._log.write(write)
        except StoreUnavailable as exc:
            if isinstance(exc.__cause__, sqlite3.IntegrityError):  # it ended long ago and is only on disk
                raise ValueError(f"job {job.id!r} exists already") from exc  # noqa: TRY004 - the port's word for it
            raise

    def get(self, job_id: str) -> Job | None:
        job = self._index.get(job_id)
        if job is not None or job_id in self._going:
            return job
        row = self._glance.execute("SELECT seq, meta FROM jobs WHERE id = ?", (job_id,)).fetchone()
        if row is None:
            return None
        job = decode_job(row[1])
        self._index.add(job, row[0])
        self._remember(job_id)
        return job

    async def settled(self, job_id: str) -> Job | None:
        await self._log.quiet(job_id)
        return self.get(job_id)

    async def secure(self, job_id: str) -> None:
        job, seq = self.get(job_id), self._index.seq(job_id)
        if job is None or seq is None or job.final:
            return

        def merge(batch: Batch) -> None:  # one durable write brings all before it to the disk
            _merge_job(batch, seq, job, job)

        await self._log.write(Write(job_id, merge))

    async def request(self, job_id: str) -> bytes | None:
        return await self._body("requests", job_id)

    async def output(self, job_id: str) -> bytes | None:
        return await self._body("outputs", job_id)

    async def swap(self, old: Job, new: Job, *, output: bytes | None = None, drop_output: bool = False) -> bool:
        current = self.get(old.id)
        seq = self._index.seq(old.id)
        if current is None or seq is None or current.version != old.version:
            return False
        step, revived = tally(current, new), current.final and not new.final
        stream = self._streams.replace(seq, Stream(0)) if revived else None
        self._index.put(new)
        self._index.count(new.endpoint, step)

        def merge(batch: Batch) -> None:
            if output is not None or drop_output:
                batch.outputs[seq] = output
            _merge_job(batch, seq, current, new)

        def commit() -> None:
            if output is not None or drop_output:
                self._hot.put(("outputs", seq), output)
            self._ended(current, new)

        def undo() -> None:
            self._index.put(current)
            self._index.count(new.endpoint, step, -1)
            if revived:
                self._streams.drop(seq)
            if stream is not None:
                self._streams.replace(seq, stream)

        durable = current.final or new.final or output is not None or current.stop is not new.stop
        size = len(output or b"")
        await self._log.write(Write(new.id, merge, commit=commit, undo=undo, durable=durable, size=size))
        return True

    def head(self, endpoint: str, limit: int) -> list[Job]:
        return self._index.head(endpoint, limit)

    def counts(self, endpoint: str) -> Counts:
        return self._index.counts(endpoint)

    def endpoints(self) -> set[str]:
        return self._index.endpoints()

    def queued(self, endpoint: str) -> list[Job]:
        return self._index.queued(endpoint)

    def leased(self, worker: str) -> list[Job]:
        return self._index.leased(worker)

    def overdue(self, now: float) -> list[Job]:
        return self._index.overdue(now)

    def next_due(self) -> float | None:
        return self._index.next_due()

    async def forget(self, ended_before: float, sync_ended_before: float) -> int:
        async with self._forgetting:  # of two sweeps at once the later would count what the earlier deletes
            return await self._forget(False, ended_before) + await self._forget(True, sync_ended_before)

    async def append(self, job_id: str, index: int, chunks: list[bytes]) -> int:
        if self.get(job_id) is None:
            raise JobNotFound
        seq = self._seq(job_id)
        stream = self._streams.of(seq)
        start = stream.count
        check_gap(job_id, index, start)
        fresh = chunks[start - index :]
        end = start + len(fresh)
        if not fresh:  # sent again: their first write may still be under way, and may fail
            await self._log.quiet(job_id)
            if stream.safe < index + len(chunks):
                raise StoreUnavailable
            return end
        self._streams.extend(seq, fresh)

        def merge(batch: Batch) -> None:
            batch.chunks.update(((seq, start + place), chunk) for place, chunk in enumerate(fresh))

        write = Write(
            job_id,
            merge,
            commit=lambda: self._streams.wrote(stream, end),
            undo=lambda: self._streams.cut(stream, start),
            durable=False,
            size=sum(map(len, fresh)),
        )
        await self._log.write(write)
        return end

    def chunks(self, job_id: str, start: int) -> list[bytes]:
        if self.get(job_id) is None:
            return []
        seq = self._seq(job_id)
        stream = self._streams.of(seq)
        cold = "SELECT body FROM chunks WHERE seq = ? AND number >= ? AND number < ? ORDER BY number"
        found: list[bytes] = []
        if start < stream.first:
            found = [body for (body,) in self._glance.execute(cold, (seq, start, stream.first))]
        return found + stream.hot[max(0, start - stream.first) : stream.safe - stream.first]

    async def deliveries(self, now: float, limit: int, hold_s: float = HOLD_S) -> list[Delivery]:
        return self._outbox.take(now, limit, hold_s)

    def next_delivery(self) -> float | None:
        return self._outbox.next_at()

    async def settle(self, delivery: Delivery) -> None:
        await self._write_delivery(delivery, None, _DELIVERY_SETTLE)

    async def postpone(self, delivery: Delivery, next_at: float) -> None:
        await self._write_delivery(
            delivery, postponed(delivery, next_at), _DELIVERY_POSTPONE, delivery.tries + 1, next_at
        )

    async def close(self) -> None:
        await self._log.close()
        await asyncio.to_thread(self._reader.shutdown)
        self._files.close()

    def _load(self) -> None:
        """Bring back what a process before this one left."""
        read = self._glance.execute
        for endpoint, *step in read("SELECT endpoint, completed, failed, retried FROM counters"):
            self._index.count(endpoint, Tally(*step))
        for seq, meta in read("SELECT seq, meta FROM jobs WHERE sync IN (0, 1) AND ended_at IS NULL ORDER BY seq"):
            self._index.add(decode_job(meta), seq)
        self._index.resume(read("SELECT coalesce(max(seq), 0) FROM jobs").fetchone()[0])
        owed = "SELECT meta, tries, next_at FROM deliveries JOIN jobs USING (seq) ORDER BY seq"
        for meta, tries, next_at in read(owed):
            job = decode_job(meta)
            if job.webhook is not None:
                self._outbox.put(Delivery(job_id=job.id, url=job.webhook, tries=tries, next_at=next_at))

    def _seq(self, job_id: str) -> int:
        seq = self._index.seq(job_id)
        if seq is None:
            raise JobNotFound
        return seq

    def _ended(self, old: Job | None, new: Job) -> None:
        """The step is on disk: what follows from a job's end, or from its coming back, becomes visible."""
        if new.final and (old is None or not old.final):
            if new.webhook:
                self._outbox.put(first_delivery(new))
            self._remember(new.id)
        elif old is not None and old.final and not new.final:
            self._outbox.drop(new.id)

    def _remember(self, job_id: str) -> None:
        """Keep the job that ended among the recent ones, and let the oldest of them go."""
        self._recent[job_id] = None
        self._recent.move_to_end(job_id)
        while len(self._recent) > self._recent_jobs:
            oldest, _ = self._recent.popitem(last=False)
            if self._log.busy(oldest):
                self._recent[oldest] = None  # its turn comes again; until then one more is kept
                return
            job = self._index.get(oldest)
            if job is not None and job.final:
                self._evict(oldest)

    def _evict(self, job_id: str) -> None:
        seq = self._index.seq(job_id)
        if seq is not None:
            self._streams.drop(seq)
            self._index.drop(job_id)

    async def _body(self, table: str, job_id: str) -> bytes | None:
        await self._log.quiet(job_id)
        job, seq = self.get(job_id), self._index.seq(job_id)
        if job is None or seq is None:
            return None
        key = (table, seq)
        if key in self._hot:
            return self._hot.get(key)
        body = await asyncio.get_running_loop().run_in_executor(self._reader, self._read_body, table, seq)
        if not self._log.busy(job_id) and self._index.get(job_id) is job:
            self._hot.put(key, body)
        return body

    def _read_body(self, table: str, seq: int) -> bytes | None:
        """In the reader's thread: a large body must not stop the loop, nor wait behind the writer."""
        row = self._reading.execute(f"SELECT body FROM {table} WHERE seq = ?", (seq,)).fetchone()  # noqa: S608
        return None if row is None else row[0]

    def _read_forgettable(self, sync: bool, before: float) -> list[tuple[int, str, float]]:
        return self._reading.execute(_FORGETTABLE, (sync, before, FORGET_JOBS)).fetchall()

    def _count_chunks(self, seq: int) -> int:
        row = self._glance.execute("SELECT coalesce(max(number) + 1, 0) FROM chunks WHERE seq = ?", (seq,)).fetchone()
        return int(row[0])

    async def _forget(self, sync: bool, before: float) -> int:
        loop, forgotten = asyncio.get_running_loop(), 0
        while True:
            rows = await loop.run_in_executor(self._reader, self._read_forgettable, sync, before)
            victims = [row for row in rows if self._forgettable(row[1], row[2])]
            if not victims:
                return forgotten
            await self._delete(victims)
            forgotten += len(victims)

    def _forgettable(self, job_id: str, ended_at: float) -> bool:
        """Whether what was read about the job is still so: it may have been retried since."""
        job = self._index.get(job_id)
        busy = self._log.busy(job_id) or job_id in self._going or job_id in self._outbox
        return not busy and (job is None or job.ended_at == ended_at)

    async def _delete(self, victims: list[tuple[int, str, float]]) -> None:
        ids = [job_id for _, job_id, _ in victims]
        for seq, job_id, _ in victims:
            self._evict(job_id)
            self._recent.pop(job_id, None)
            self._hot.drop(("requests", seq))
            self._hot.drop(("outputs", seq))
        self._going.update(ids)

        def merge(batch: Batch) -> None:
            batch.forgotten.extend((seq, ended_at) for seq, _, ended_at in victims)

        def over() -> None:
            self._going.difference_update(ids)

        await self._log.write(Write(None, merge, commit=over, undo=over))

    async def _write_delivery(self, old: Delivery, new: Delivery | None, statement: str, *values: Value) -> None:
        if self._outbox.get(old.job_id) != old or self.get(old.job_id) is None:
            return
        seq = self._seq(old.job_id)

        def merge(batch: Batch) -> None:
            batch.statements.append((statement, (*values, seq, old.tries, old.next_at)))

        def commit() -> None:
            if self._outbox.get(old.job_id) != old:
                return
            if new is None:
                self._outbox.drop(old.job_id)
            else:
                self._outbox.put(new)

        await self._log.write(Write(None, merge, commit=commit))


def _merge_job(batch: Batch, seq: int, old: Job | None, new: Job) -> None:
    """Put the newest version of the job into the batch, with what its end or its coming back brings along."""
    batch.jobs[seq] = new
    step = tally(old, new)
    if any(step):
        batch.count(new.endpoint, step)
    if old is not None and old.final and not new.final:
        batch.drop_chunks(seq)
        batch.statements.append((_DELIVERY_DROP, (seq,)))
    if new.final and new.webhook and (old is None or not old.final):
        batch.statements.append((_DELIVERY_PUT, (seq, new.ended_at)))
