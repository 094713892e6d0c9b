"""The port from a worker to a job service: requests, replies and failures.

`HttpLink` (http.py) speaks RunPod's protocol, and with our own service the extensions of docs/extensions.md.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol

from runpod_worker.core.dispatch.values import Assignment, AttemptRef, TakeRequest


class ReportReply(NamedTuple):
    """The reply to a report. `stale`: this worker no longer holds the attempt."""

    stale: bool = False
    jobs: tuple[Assignment, ...] = ()


class Link(Protocol):
    """The job service as a worker sees it.

    Every call may raise LinkDown (no reply, 5xx: try again later), LinkBusy (429, the same) or LinkRefused (4xx: do
    not repeat it). A call may be cancelled at any time. The caller retries.
    """

    @property
    def extensions(self) -> frozenset[str]:
        """The names of docs/extensions.md that the service offered in its reply to the latest heartbeat."""

    @property
    def files_url(self) -> str | None:
        """The URL for files; None if the service does not offer `files`."""

    async def take(self, request: TakeRequest, *, busy: bool) -> Sequence[Assignment]:
        """Wait for jobs as long as the service holds the request (at most 90 s). Empty: no job yet."""

    async def poll_stops(self) -> Sequence[AttemptRef]:
        """Wait for attempts to stop. Empty: none yet. A number of None means the attempt that is held.

        Raises:
            LinkRefused: also when the service has no such route.
        """

    async def heartbeat(self, job_ids: Collection[str]) -> None:
        """Report that this worker is alive and holds these jobs."""

    async def report_unhealthy(self, check: str, reason: str) -> None:
        """Report that this worker failed a fitness check and will not take jobs."""

    async def finish(
        self,
        attempt: AttemptRef,
        body: bytes,
        *,
        is_stream: bool = False,
        take: TakeRequest | None = None,
        worker_id: str | None = None,
    ) -> ReportReply:
        """Report the outcome (a JSON object).

        `take`: the reply may contain the next jobs; only if the service offers `take`. `worker_id`: the worker that ran
        the attempt, by default this worker.
        """

    async def report_progress(self, attempt: AttemptRef, value: bytes, number: int) -> ReportReply:
        """Report the latest progress value (JSON), the `number`-th of this attempt."""

    async def report_chunks(self, attempt: AttemptRef, index: int, outputs: Sequence[bytes]) -> ReportReply:
        """Report consecutive chunks (JSON each), the first with this index. Several only with extension `chunks`."""

    async def release(self, take_ids: Sequence[str], attempts: Sequence[AttemptRef]) -> None:
        """Release these attempts, and all jobs of these takes. Only if the service offers `return`."""

    async def store_file(self, job_id: str, token: str, name: str, content_type: str, body: bytes) -> None:
        """Store one output file.

        Raises:
            LinkRefused: also if the service does not offer `files`.
        """

    async def close(self) -> None:
        """Close the connections."""
