"""The settings of the job service. `runpod_worker.config` reads the environment and the command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from runpod_worker.config import Old, setting
from runpod_worker.core import job, lifecycle
from runpod_worker.core import protocol as wire
from runpod_worker.core.backoff import Schedule

DAY_MS = 86_400_000

DELAYS_S = (5, 15, 60, 300, 900, 1_800, 3_600, 7_200, 14_400, 28_800)
"""The first two waits are the platform's (protocol A.8), which stops after them; these continue for 16 hours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookSettings:
    """How webhooks are sent."""

    schedule: Schedule = field(
        default_factory=lambda: Schedule(DELAYS_S),
        metadata={"text": "Waits between tries: ten over 16 hours; then the delivery is given up, with a log line"},
    )
    timeout_s: float = setting(
        15.0, "RUNPOD_SERVICE_WEBHOOK_TIMEOUT", text="Limit for connection, request and reply of one try together"
    )
    max_concurrent: int = setting(64, text="Webhooks sent at the same time", old=Old(name="at_once"))
    max_concurrent_per_receiver: int = setting(
        4, text="Webhooks sent at the same time to one receiver", old=Old(name="at_once_per_receiver")
    )
    private: bool = setting(False, "RUNPOD_SERVICE_PRIVATE_WEBHOOKS", text="Send to private and loopback addresses too")
    secret: str | None = setting(
        None,
        "RUNPOD_SERVICE_WEBHOOK_SECRET",
        secret=True,
        text="A Standard-Webhooks secret (`whsec_` and base64) that signs the bodies; unset: no signature",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """Addresses, timeouts, limits and retention of one job service. `_s` is seconds, `_ms` milliseconds."""

    host: str = setting("127.0.0.1", "RUNPOD_SERVICE_HOST", text="Address; other than loopback needs an API key")
    port: int = setting(8000, "RUNPOD_SERVICE_PORT", text="Port; 0 lets the system choose")
    public_url: str | None = setting(
        None,
        "RUNPOD_SERVICE_PUBLIC_URL",
        text="How others reach it (`https://jobs.example.org`); by default the address that each request names",
    )
    data: Path | None = setting(
        None,
        "RUNPOD_SERVICE_DATA",
        text="Folder of the job store and the output files; unset in code: jobs in memory, no files",
    )

    lease_s: float = setting(
        lifecycle.LEASE_S, "RUNPOD_SERVICE_LEASE", text="How long a job stays with a worker that sends no heartbeat"
    )
    take_poll_timeout_s: float = setting(
        50.0,
        "RUNPOD_SERVICE_TAKE_POLL_TIMEOUT",
        text="How long job-take and job-stop stay open: workers give up after 90 s, many proxies after 60 s",
        old=Old(name="take_hold_s", env="RUNPOD_SERVICE_TAKE_HOLD"),
    )
    runsync_poll_timeout_s: float = setting(
        90.0,
        "RUNPOD_SERVICE_RUNSYNC_POLL_TIMEOUT",
        text="How long /runsync waits for the job's end",
        old=Old(name="runsync_hold_s", env="RUNPOD_SERVICE_RUNSYNC_HOLD"),
    )
    stream_poll_timeout_s: float = setting(
        10.0,
        "RUNPOD_SERVICE_STREAM_POLL_TIMEOUT",
        text="How long /stream waits for a chunk",
        old=Old(name="stream_hold_s", env="RUNPOD_SERVICE_STREAM_HOLD"),
    )
    cancel_poll_timeout_s: float = setting(
        2.0,
        "RUNPOD_SERVICE_CANCEL_POLL_TIMEOUT",
        text="How long /cancel waits for a worker that confirms stops: RunPod's clients give up after 3 s",
        old=Old(name="cancel_hold_s", env="RUNPOD_SERVICE_CANCEL_HOLD"),
    )
    wait_bounds_ms: tuple[int, int] = setting((1_000, 300_000), text="Least and most that `?wait=` may ask for")
    keepalive_s: float = setting(
        80.0,
        "RUNPOD_SERVICE_KEEPALIVE",
        text="A reply that waits sends a space this often, so that proxies keep the connection; JSON ignores it",
        old=Old(name="silence_s", env="RUNPOD_SERVICE_SILENCE"),
    )
    drain_s: float = setting(
        10.0, "RUNPOD_SERVICE_DRAIN", text="How long a closing service waits for requests that are not long polls"
    )

    execution_timeout_ms: int = setting(
        job.EXECUTION_TIMEOUT_MS, "RUNPOD_SERVICE_EXECUTION_TIMEOUT", text="executionTimeout of jobs that name none"
    )
    execution_timeout_bounds_ms: tuple[int, int] = setting((5_000, 7 * DAY_MS), text="Least and most a job may name")
    ttl_ms: int = setting(job.TTL_MS, "RUNPOD_SERVICE_TTL", text="ttl of jobs that name none")
    ttl_bounds_ms: tuple[int, int] = setting((10_000, 7 * DAY_MS), text="Least and most a job may name")

    max_run_bytes: int = setting(
        wire.MAX_RUN_BYTES,
        "RUNPOD_SERVICE_MAX_RUN_BYTES",
        text="Refuse larger /run requests",
        old=Old(name="run_limit", env="RUNPOD_SERVICE_RUN_LIMIT"),
    )
    max_runsync_bytes: int = setting(
        wire.MAX_RUNSYNC_BYTES,
        "RUNPOD_SERVICE_MAX_RUNSYNC_BYTES",
        text="Refuse larger /runsync requests",
        old=Old(name="runsync_limit", env="RUNPOD_SERVICE_RUNSYNC_LIMIT"),
    )
    max_result_bytes: int = setting(
        wire.MAX_RESULT_BYTES,
        "RUNPOD_SERVICE_MAX_RESULT_BYTES",
        text="Refuse larger results, and fail the job",
        old=Old(name="result_limit", env="RUNPOD_SERVICE_RESULT_LIMIT"),
    )
    max_file_bytes: int = setting(
        wire.MAX_RESULT_BYTES,
        "RUNPOD_SERVICE_MAX_FILE_BYTES",
        text="Refuse larger output files",
        old=Old(name="file_limit", env="RUNPOD_SERVICE_FILE_LIMIT"),
    )
    max_backlog_jobs: int = setting(
        200_000,
        "RUNPOD_SERVICE_MAX_BACKLOG_JOBS",
        text="Refuse jobs with 429 while this many of their endpoint are IN_QUEUE",
        old=Old(name="backlog_limit", env="RUNPOD_SERVICE_BACKLOG"),
    )

    retention_s: float = setting(
        1800.0, "RUNPOD_SERVICE_RETENTION", text="How long a job of /run can be read after its end"
    )
    sync_retention_s: float = setting(
        60.0, "RUNPOD_SERVICE_SYNC_RETENTION", text="How long a job of /runsync can be read after its end"
    )
    forget_every_s: float = setting(15.0, text="Time between two sweeps for jobs that are over their retention")
    file_retention_s: float = setting(
        86_400.0, "RUNPOD_SERVICE_FILE_RETENTION", text="How long output files can be fetched"
    )
    worker_retention_s: float = setting(
        120.0, text="How long /health counts a worker after its last request", old=Old(name="worker_silence_s")
    )

    webhooks: WebhookSettings = field(
        default_factory=WebhookSettings, metadata={"text": "How webhooks are sent: the next table"}
    )
