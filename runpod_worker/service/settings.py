"""What can be set about the job service. Values come in by the constructor; `runpod_worker.config` reads the world."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from runpod_worker.core import lifecycle, wire

from .webhooks import WebhookSettings

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """Addresses, holds, limits and retention of one job service. `_s` is seconds, `_ms` milliseconds."""

    host: str = "127.0.0.1"
    port: int = 8000
    """0 lets the system choose; the ready callback tells which."""
    public_url: str | None = None
    """How others reach this service (`https://jobs.example.org`); by default what each request calls it."""

    lease_s: float = lifecycle.LEASE_S
    take_hold_s: float = 50.0
    """How long job-take and job-stop stay open: workers give up after 90 s, many proxies after 60 s."""
    runsync_hold_s: float = 90.0
    stream_hold_s: float = 10.0
    cancel_hold_s: float = 2.0
    """How long /cancel waits for a worker that confirms stops: RunPod's clients give up after 3 s."""
    wait_bounds_ms: tuple[int, int] = (1_000, 300_000)
    """What a caller may ask for with `?wait=`."""
    silence_s: float = 80.0
    """A held reply sends a space after this time (JSON allows it), so that no proxy takes it for dead."""
    drain_s: float = 10.0
    """How long a closing service lets requests finish that are not holds."""

    execution_timeout_ms: int = lifecycle.EXECUTION_TIMEOUT_MS
    execution_timeout_bounds_ms: tuple[int, int] = (5_000, 7 * DAY_MS)
    ttl_ms: int = lifecycle.TTL_MS
    ttl_bounds_ms: tuple[int, int] = (10_000, 7 * DAY_MS)

    run_limit: int = wire.RUN_LIMIT
    runsync_limit: int = wire.RUNSYNC_LIMIT
    result_limit: int = wire.RESULT_LIMIT
    file_limit: int = wire.RESULT_LIMIT
    """Bytes of one output file."""
    backlog_limit: int = 200_000
    """Jobs IN_QUEUE of one endpoint; more are refused with 429."""

    retention_s: float = 1800.0
    sync_retention_s: float = 60.0
    """How long a job that ended can be read, for /run and for /runsync."""
    forget_every_s: float = 15.0
    file_retention_s: float = 86_400.0
    """How long output files can be fetched."""
    worker_silence_s: float = 120.0
    """A worker that was not heard of for so long is no longer counted in /health."""

    data: Path | None = None
    """The folder of the job store and the output files; None keeps jobs in memory and takes no files."""
    webhooks: WebhookSettings = field(default_factory=WebhookSettings)
