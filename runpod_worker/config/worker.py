"""The settings of a worker process."""

from __future__ import annotations

import re
import socket
import uuid
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, replace
from pathlib import Path
from urllib.parse import quote, quote_plus

import msgspec

from runpod_worker.config.bounds import MAX_SETTING_BYTES, MAX_TIME_S
from runpod_worker.config.env import channel_fd, environment
from runpod_worker.config.groups import DownloadSettings
from runpod_worker.config.loading import Old, load, setting, warn_of_unknown
from runpod_worker.log import LEVEL_PATTERN, LEVELS

PREFIX = "RUNPOD_WORKER_"
EXECUTOR_SETTINGS = "RUNPOD_WORKER_SETTINGS"

SPOOL_DIR = Path("~/.cache/runpod_worker/spool").expanduser()


def default_worker_id() -> str:
    """Return an id that no other worker has."""
    return f"{re.sub('[^A-Za-z0-9_-]', '-', socket.gethostname())[:32]}-{uuid.uuid4().hex[:12]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """The settings of a worker process (protocol B.1, B.2)."""

    url: str | None = setting(
        None,
        "RUNPOD_WORKER_URL",
        cli="--url",
        url=True,
        pattern=r".+/v2/[^/?#]+/*",
        words="http(s)://host[:port]/v2/ENDPOINT",
        text="Job service and endpoint, `http://host:port/v2/ENDPOINT`; makes the other four URLs",
    )
    take_url: str | None = setting(
        None, "RUNPOD_WEBHOOK_GET_JOB", url=True, text="URL template of job-take; unset: local mode"
    )
    done_url: str | None = setting(None, "RUNPOD_WEBHOOK_POST_OUTPUT", url=True, text="URL template of job-done")
    stream_url: str | None = setting(None, "RUNPOD_WEBHOOK_POST_STREAM", url=True, text="URL template of job-stream")
    ping_url: str | None = setting(
        None, "RUNPOD_WEBHOOK_PING", url=True, text="URL of the heartbeat; unset: no heartbeats"
    )
    ping_interval_s: float = setting(
        10.0,
        "RUNPOD_PING_INTERVAL",
        scale=0.001,
        minimum=0.001,
        maximum=MAX_TIME_S,
        text="Time between heartbeats (the variable is in milliseconds)",
    )
    api_key: str | None = setting(
        None,
        "RUNPOD_AI_API_KEY",
        cli="--key",
        secret=True,
        text="API key, sent unchanged as the `Authorization` header",
    )
    worker_id: str = setting(
        MISSING,
        "RUNPOD_POD_ID",
        cli="--worker-id",
        text="This worker's id; a random one by default",
        default_factory=default_worker_id,
    )
    hostname: str = setting("unknown", "RUNPOD_POD_HOSTNAME", text="Named in the error of a failed job")
    endpoint_id: str | None = setting(
        None, "RUNPOD_ENDPOINT_ID", text="The endpoint's id; when set, log lines are JSON"
    )
    gpu: str | None = setting(None, "RUNPOD_GPU_NAME", text="GPU type that is sent to the service with `url`")
    device: str = setting(
        "auto",
        "RUNPOD_WORKER_DEVICE",
        cli="--device",
        pattern=r"auto|cpu|mps|cuda(:\d+)?",
        words="auto, cuda, cuda:N, cpu or mps",
        file="device",
        text="The device that the model is loaded on",
    )
    concurrency: int | None = setting(
        None,
        "RUNPOD_WORKER_CONCURRENCY",
        cli="--concurrency",
        minimum=1,
        maximum=10_000,
        file="concurrency",
        text="Concurrent jobs; overrides the handler's own option",
    )
    uvloop: bool | None = setting(
        None,
        "RUNPOD_WORKER_UVLOOP",
        text="Run handlers on uvloop; default: yes, but asyncio's own loop for handlers of `serverless.start`",
    )
    grace_s: float = setting(
        30.0,
        "RUNPOD_WORKER_GRACE",
        cli="--grace",
        minimum=0,
        maximum=MAX_TIME_S,
        file="timeouts.grace",
        text="After SIGTERM, how long running jobs may take to end, in seconds",
    )
    stop_grace_s: float = setting(
        5.0,
        "RUNPOD_WORKER_STOP_GRACE",
        minimum=0,
        maximum=MAX_TIME_S,
        file="timeouts.stop",
        text="Seconds until the process of a stopped handler is killed",
    )
    load_timeout_s: float = setting(
        1800.0,
        "RUNPOD_INIT_TIMEOUT",
        minimum=0.001,
        maximum=MAX_TIME_S,
        file="timeouts.load",
        text="Seconds that loading the model may take; longer than the 1,200 s that worker-vllm gives its server",
    )
    prefetch_s: float = setting(
        0.5,
        "RUNPOD_WORKER_PREFETCH",
        minimum=0,
        maximum=MAX_TIME_S,
        file="prefetch",
        text="Seconds that a job may wait in the worker for a slot; 0: no prefetch",
        old=Old(name="ahead_s", env="RUNPOD_WORKER_AHEAD", file="ahead"),
    )
    prefetch_jobs: int = setting(
        32,
        "RUNPOD_WORKER_PREFETCH_JOBS",
        minimum=0,
        maximum=10_000,
        text="Maximum number of jobs that wait for one slot; 0: no prefetch",
        old=Old(name="ahead_jobs", env="RUNPOD_WORKER_AHEAD_JOBS"),
    )
    spool_dir: Path = setting(
        SPOOL_DIR,
        "RUNPOD_WORKER_SPOOL",
        file="spool.dir",
        text="Folder for results that are not delivered yet",
    )
    spool_bytes: int = setting(
        1 << 30,
        "RUNPOD_WORKER_SPOOL_BYTES",
        minimum=1,
        maximum=MAX_SETTING_BYTES,
        file="spool.bytes",
        text="Maximum bytes in that folder",
    )
    health_file: Path | None = setting(
        None, "RUNPOD_WORKER_HEALTH_FILE", text="Touched every 5 seconds while the worker lives, for a health check"
    )
    log_level: str = setting(
        "INFO",
        "RUNPOD_LOG_LEVEL",
        "RUNPOD_DEBUG_LEVEL",
        cli="--log-level",
        pattern=LEVEL_PATTERN,
        words=LEVELS,
        text="The least level of log lines",
    )

    @property
    def deployed(self) -> bool:
        """Whether the settings name a job service. Without one the handler runs once, locally."""
        return bool(self.url or self.take_url)


def worker_settings(
    given: Mapping[str, object] | None = None,
    *,
    env: Mapping[str, str] | None = None,
    file: Mapping[str, object] | None = None,
) -> WorkerSettings:
    """Return the worker's settings; `url`, when it is given, provides the URL templates.

    An executor gets the settings of the agent that started it; the arguments of its own code win over them.
    """
    env = environment() if env is None else env
    if channel_fd(env) is not None and env.get(EXECUTOR_SETTINGS):
        own = {name: value for name, value in (given or {}).items() if value is not None}
        given = msgspec.json.decode(env[EXECUTOR_SETTINGS], type=dict[str, object]) | own
        if given.get("url"):  # then RUNPOD_ENDPOINT_ID is there for the handler, and must not turn log lines into JSON
            env = {name: value for name, value in env.items() if name != "RUNPOD_ENDPOINT_ID"}
    else:
        warn_of_unknown(PREFIX, (WorkerSettings, DownloadSettings), env)
    settings = load(WorkerSettings, given, env=env, file=file)
    if settings.url is None:
        return settings
    return _with_urls(settings, settings.url, given or {})


def platform_variables(settings: WorkerSettings) -> dict[str, str]:
    """Return the variables that RunPod's platform sets, for a worker whose job service is set by `url`."""
    if settings.url is None:
        return {}
    values = {
        "RUNPOD_ENDPOINT_ID": settings.url.rstrip("/").rpartition("/")[2],
        "RUNPOD_WEBHOOK_GET_JOB": settings.take_url,
        "RUNPOD_WEBHOOK_POST_OUTPUT": settings.done_url,
        "RUNPOD_WEBHOOK_POST_STREAM": settings.stream_url,
        "RUNPOD_WEBHOOK_PING": settings.ping_url,
    }
    return {name: value for name, value in values.items() if value is not None}


def executor_settings(settings: WorkerSettings) -> dict[str, str]:
    """Return the variable that passes an agent's settings to its executor, without the key."""
    return {EXECUTOR_SETTINGS: msgspec.json.encode(replace(settings, api_key=None), enc_hook=str).decode()}


def _with_urls(settings: WorkerSettings, url: str, given: Mapping[str, object]) -> WorkerSettings:
    base = url.rstrip("/")
    gpu = f"?gpu={quote_plus(settings.gpu or 'cpu')}"
    me = quote(settings.worker_id, safe="")
    templates = {
        "take_url": f"{base}/job-take/{me}{gpu}",
        "done_url": f"{base}/job-done/{me}/$ID{gpu}",
        "stream_url": f"{base}/job-stream/{me}/$ID{gpu}",
        "ping_url": f"{base}/ping/{me}{gpu}",
    }
    return replace(settings, **{name: url for name, url in templates.items() if name not in given})  # type: ignore[arg-type]
