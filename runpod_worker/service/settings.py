"""What can be set about the job service. Values come in by the constructor; `runpod_worker.config` reads the world."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from runpod_worker.config import setting
from runpod_worker.core import job, lifecycle
from runpod_worker.core import protocol as wire
from runpod_worker.service.webhooks import WebhookSettings

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """Addresses, holds, limits and retention of one job service. `_s` is seconds, `_ms` milliseconds."""

    host: str = setting("127.0.0.1", "RUNPOD_SERVICE_HOST", text="Address; other than loopback needs an API key")
    port: int = setting(8000, "RUNPOD_SERVICE_PORT", text="Port; 0 lets the system choose")
    public_url: str | None = setting(
        None,
        "RUNPOD_SERVICE_PUBLIC_URL",
        text="How others reach it (`https://jobs.example.org`); by default what each request calls it",
    )
    data: Path | None = setting(
        None,
        "RUNPOD_SERVICE_DATA",
        text="Folder of the job store and the output files; unset in code: jobs in memory, no files",
    )

    lease_s: float = setting(
        lifecycle.LEASE_S, "RUNPOD_SERVICE_LEASE", text="How long a silent worker keeps a job before another gets it"
    )
    take_hold_s: float = setting(
        50.0,
        "RUNPOD_SERVICE_TAKE_HOLD",
        text="How long job-take and job-stop stay open: workers give up after 90 s, many proxies after 60 s",
    )
    runsync_hold_s: float = setting(90.0, "RUNPOD_SERVICE_RUNSYNC_HOLD", text="How long /runsync waits for the end")
    stream_hold_s: float = setting(10.0, "RUNPOD_SERVICE_STREAM_HOLD", text="How long /stream waits for a chunk")
    cancel_hold_s: float = setting(
        2.0,
        "RUNPOD_SERVICE_CANCEL_HOLD",
        text="How long /cancel waits for a worker that confirms stops: RunPod's clients give up after 3 s",
    )
    wait_bounds_ms: tuple[int, int] = setting((1_000, 300_000), text="What a caller may ask for with `?wait=`")
    silence_s: float = setting(
        80.0,
        "RUNPOD_SERVICE_SILENCE",
        text="A held reply sends a space after this time (JSON allows it), so that no proxy takes it for dead",
    )
    drain_s: float = setting(
        10.0, "RUNPOD_SERVICE_DRAIN", text="How long a closing service lets requests finish that are not holds"
    )

    execution_timeout_ms: int = setting(
        job.EXECUTION_TIMEOUT_MS,
        "RUNPOD_SERVICE_EXECUTION_TIMEOUT",
        text="executionTimeout of jobs that name none",
    )
    execution_timeout_bounds_ms: tuple[int, int] = setting((5_000, 7 * DAY_MS), text="What a job may name")
    ttl_ms: int = setting(job.TTL_MS, "RUNPOD_SERVICE_TTL", text="ttl of jobs that name none")
    ttl_bounds_ms: tuple[int, int] = setting((10_000, 7 * DAY_MS), text="What a job may name")

    run_limit: int = setting(wire.RUN_LIMIT, "RUNPOD_SERVICE_RUN_LIMIT", text="Most bytes of a /run request")
    runsync_limit: int = setting(
        wire.RUNSYNC_LIMIT, "RUNPOD_SERVICE_RUNSYNC_LIMIT", text="Most bytes of a /runsync request"
    )
    result_limit: int = setting(wire.RESULT_LIMIT, "RUNPOD_SERVICE_RESULT_LIMIT", text="Most bytes of a result")
    file_limit: int = setting(wire.RESULT_LIMIT, "RUNPOD_SERVICE_FILE_LIMIT", text="Most bytes of one output file")
    backlog_limit: int = setting(
        200_000, "RUNPOD_SERVICE_BACKLOG", text="Most jobs IN_QUEUE of one endpoint; more are refused with 429"
    )

    retention_s: float = setting(
        1800.0, "RUNPOD_SERVICE_RETENTION", text="How long a job of /run can be read after its end"
    )
    sync_retention_s: float = setting(
        60.0, "RUNPOD_SERVICE_SYNC_RETENTION", text="How long a job of /runsync can be read after its end"
    )
    forget_every_s: float = setting(15.0, text="Time between two sweeps of what is over its retention")
    file_retention_s: float = setting(
        86_400.0, "RUNPOD_SERVICE_FILE_RETENTION", text="How long output files can be fetched"
    )
    worker_silence_s: float = setting(
        120.0, text="A worker that was not heard of for so long is no longer counted in /health"
    )

    webhooks: WebhookSettings = field(
        default_factory=WebhookSettings, metadata={"text": "How webhooks are sent: the next table"}
    )
