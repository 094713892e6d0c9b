"""The settings of the job service. `runpod_worker.config` reads the environment and the command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from runpod_worker.config import MAX_SETTING_BYTES, MAX_TIME_S, Old, setting
from runpod_worker.core import job, lifecycle
from runpod_worker.core import protocol as wire
from runpod_worker.core.backoff import Schedule
from runpod_worker.core.errors import SettingsError
from runpod_worker.log import LEVEL_PATTERN, LEVELS

DAY_MS = 86_400_000
PREFIX = "RUNPOD_SERVICE_"

DELAYS_S = (5, 15, 60, 300, 900, 1_800, 3_600, 7_200, 14_400, 28_800)
"""The platform waits 5 s and 15 s, then gives up (protocol A.8). These waits continue for 16 hours."""


def make_data_folder(folder: Path) -> None:
    """Create the data folder if it does not exist; other users must not read inputs and outputs.

    Raises:
        SettingsError: it cannot be a folder.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror
        raise SettingsError(f"data: expected a folder that can be written, got {str(folder)!r} ({reason})") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookSettings:
    """How webhooks are sent."""

    schedule: Schedule = field(
        default_factory=lambda: Schedule(DELAYS_S),
        metadata={"text": "Waits between tries: ten over 16 hours; then the delivery is given up, with a log line"},
    )
    timeout_s: float = setting(
        15.0,
        "RUNPOD_SERVICE_WEBHOOK_TIMEOUT",
        minimum=0.001,
        maximum=MAX_TIME_S,
        text="Limit for connection, request and reply of one try together",
    )
    max_concurrent: int = setting(64, minimum=1, text="Webhooks sent at the same time", old=Old(name="at_once"))
    max_concurrent_per_receiver: int = setting(
        4,
        minimum=1,
        text="Webhooks sent at the same time to one receiver",
        old=Old(name="at_once_per_receiver"),
    )
    private: bool = setting(False, "RUNPOD_SERVICE_PRIVATE_WEBHOOKS", text="Send to private and loopback addresses too")
    secret: str | None = setting(
        None,
        "RUNPOD_SERVICE_WEBHOOK_SECRET",
        secret=True,
        text="A Standard-Webhooks secret (`whsec_` and base64) that signs the bodies; unset: no signature",
    )


def _setting(variable: str, default: Any, text: str, *, old: str = "", old_variable: str = "", **more: Any) -> Any:
    """A setting with the environment variable `RUNPOD_SERVICE_` and `variable`; `more` goes to `setting`.

    `old` is its name in release 0.1. The old variable is that name without the unit, or `old_variable`.
    """
    former = Old(name=old, env=PREFIX + (old_variable or old.removesuffix("_s").upper())) if old else None
    return setting(default, PREFIX + variable, text=text, old=former, **more)


def _time(variable: str, default: float, text: str, *, minimum: float = 0, **more: Any) -> Any:
    """A setting in seconds."""
    return _setting(variable, default, text, minimum=minimum, maximum=MAX_TIME_S, **more)


def _size(variable: str, default: int, text: str, **more: Any) -> Any:
    """A setting in bytes."""
    return _setting(variable, default, text, minimum=1, maximum=MAX_SETTING_BYTES, **more)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """Addresses, timeouts, limits and retention of one job service. `_s` is seconds, `_ms` milliseconds."""

    host: str = _setting(
        "HOST",
        "127.0.0.1",
        "Address to listen on; other than loopback needs an API key",
        pattern=r"[^\s/\x00-\x20\x7f]+",
        words="an address without spaces and slashes",
        cli="--host",
    )
    port: int = _setting("PORT", 8000, "Port; 0 lets the system choose", minimum=0, maximum=65535, cli="--port")
    public_url: str | None = _setting(
        "PUBLIC_URL",
        None,
        "How others reach it (`https://jobs.example.org`); by default the address that each request names",
        url=True,
        cli="--public-url",
    )
    allowed_hosts: str = _setting(
        "ALLOWED_HOSTS",
        "",
        "Further names under which callers reach it and whose web pages may call it, with spaces between; without API "
        "keys it answers requests to localhost, loopback addresses and these names only",
    )
    data: Path | None = _setting(
        "DATA",
        None,
        "Folder of the job store and the output files; unset in code: jobs in memory, no files",
        cli="--data",
    )

    lease_s: float = _time(
        "LEASE",
        lifecycle.LEASE_S,
        "How long a job stays with a worker that sends no heartbeat",
        minimum=1,
        cli="--lease",
    )
    take_poll_timeout_s: float = _time(
        "TAKE_POLL_TIMEOUT",
        50.0,
        "How long job-take and job-stop stay open: workers give up after 90 s, many proxies after 60 s",
        old="take_hold_s",
    )
    runsync_poll_timeout_s: float = _time(
        "RUNSYNC_POLL_TIMEOUT", 90.0, "How long /runsync waits for the job's end", old="runsync_hold_s"
    )
    stream_poll_timeout_s: float = _time(
        "STREAM_POLL_TIMEOUT", 10.0, "How long /stream waits for a chunk", old="stream_hold_s"
    )
    cancel_poll_timeout_s: float = _time(
        "CANCEL_POLL_TIMEOUT",
        2.0,
        "How long /cancel waits for a worker that confirms stops: RunPod's clients give up after 3 s",
        old="cancel_hold_s",
    )
    wait_bounds_ms: tuple[int, int] = setting((1_000, 300_000), text="Least and most that `?wait=` may ask for")
    keepalive_s: float = _time(
        "KEEPALIVE",
        80.0,
        "A reply that waits sends a space this often, so that proxies keep the connection; JSON ignores it",
        minimum=0.1,
        old="silence_s",
    )
    drain_s: float = _time("DRAIN", 10.0, "How long a closing service waits for requests that are not long polls")

    execution_timeout_ms: int = _setting(
        "EXECUTION_TIMEOUT",
        job.EXECUTION_TIMEOUT_MS,
        "executionTimeout of jobs that name none",
        minimum=1,
        maximum=7 * DAY_MS,
    )
    execution_timeout_bounds_ms: tuple[int, int] = setting((5_000, 7 * DAY_MS), text="Least and most a job may name")
    ttl_ms: int = _setting("TTL", job.TTL_MS, "ttl of jobs that name none", minimum=1, maximum=7 * DAY_MS)
    ttl_bounds_ms: tuple[int, int] = setting((10_000, 7 * DAY_MS), text="Least and most a job may name")

    max_run_bytes: int = _size("MAX_RUN_BYTES", wire.MAX_RUN_BYTES, "Refuse larger /run requests", old="run_limit")
    max_runsync_bytes: int = _size(
        "MAX_RUNSYNC_BYTES", wire.MAX_RUNSYNC_BYTES, "Refuse larger /runsync requests", old="runsync_limit"
    )
    max_result_bytes: int = _size(
        "MAX_RESULT_BYTES", wire.MAX_RESULT_BYTES, "Refuse larger results, and fail the job", old="result_limit"
    )
    max_file_bytes: int = _size("MAX_FILE_BYTES", wire.MAX_RESULT_BYTES, "Refuse larger output files", old="file_limit")
    max_backlog_jobs: int = _setting(
        "MAX_BACKLOG_JOBS",
        200_000,
        "Refuse jobs with 429 while this many of their endpoint are IN_QUEUE",
        minimum=1,
        maximum=1_000_000_000,
        old="backlog_limit",
        old_variable="BACKLOG",
    )

    retention_s: float = _time("RETENTION", 1800.0, "How long a job of /run can be read after its end")
    sync_retention_s: float = _time("SYNC_RETENTION", 60.0, "How long a job of /runsync can be read after its end")
    forget_every_s: float = setting(15.0, text="Time between two sweeps for jobs that are over their retention")
    file_retention_s: float = _time("FILE_RETENTION", 86_400.0, "How long output files can be fetched")
    worker_retention_s: float = setting(
        120.0, text="How long /health counts a worker after its last request", old=Old(name="worker_silence_s")
    )

    log_level: str = _setting(
        "LOG_LEVEL", "INFO", "The least level of log lines", pattern=LEVEL_PATTERN, words=LEVELS, cli="--log-level"
    )
    log_format: str = _setting(
        "LOG_FORMAT", "text", "Format of log lines", pattern="text|json", words="text or json", cli="--log-format"
    )

    webhooks: WebhookSettings = field(
        default_factory=WebhookSettings, metadata={"text": "How webhooks are sent: the next table"}
    )

    def callers_hosts(self) -> list[str]:
        """The names in `allowed_hosts`, and that of the public URL."""
        public = urlsplit(self.public_url or "").netloc
        return [*self.allowed_hosts.replace(",", " ").split(), *filter(None, (public,))]
