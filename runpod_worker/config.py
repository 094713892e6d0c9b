"""The only reader of the environment: turns command line, environment, worker.yaml and defaults into settings.

A group of settings is a frozen dataclass whose fields are made by `setting(...)`. For each field the first of these
that has a value wins: what the caller gave (command line or code) > environment > worker.yaml > default.
"""

from __future__ import annotations

import os
import re
import socket
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar, get_type_hints
from urllib.parse import quote, quote_plus, urlsplit

import msgspec

from runpod_worker.core.errors import SettingsError

T = TypeVar("T")


def setting(
    default: Any = MISSING, *env: str, text: str, file: str | None = None, secret: bool = False, scale: float = 1
) -> Any:
    """A dataclass field that can be set from outside.

    Args:
        default: the value when nothing else gives one.
        env: environment variables that set it, the first that is set and not empty wins.
        text: one line for the table of settings.
        file: its name in worker.yaml, with dots between levels.
        secret: never shown.
        scale: what the environment's number is multiplied by (0.001 when it is in milliseconds).
    """
    about = {"env": env, "text": text, "file": file, "secret": secret, "scale": scale}
    return field(default=default, metadata=about)


@dataclass(frozen=True, slots=True)
class Loaded:
    """Where one setting's value came from."""

    name: str
    value: object
    origin: str


def environment() -> Mapping[str, str]:
    """The process's environment."""
    return os.environ


def put_on_python_path(folder: Path) -> None:
    """Let all Python processes that are started from here look for modules in this folder first."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), *([before] if before else [])])


def fill_environment(values: Mapping[str, str]) -> None:
    """Set those of `values` that the environment does not set: worker.yaml's `env`, for us and for the handler."""
    for name, value in values.items():
        os.environ.setdefault(name, value)


def load(
    cls: type[T],
    given: Mapping[str, object] | None = None,
    *,
    env: Mapping[str, str] | None = None,
    file: Mapping[str, object] | None = None,
    given_from: str = "command line",
) -> T:
    """Return `cls` filled from `given` (None means not given), environment, worker.yaml and defaults.

    Raises:
        SettingsError: a value is not of the setting's type, or a name in `given` is not a setting.
    """
    found = resolve(cls, given, env=env, file=file, given_from=given_from)
    return cls(**{one.name: one.value for one in found})


def resolve(
    cls: type[Any],
    given: Mapping[str, object] | None = None,
    *,
    env: Mapping[str, str] | None = None,
    file: Mapping[str, object] | None = None,
    given_from: str = "command line",
) -> list[Loaded]:
    """Every setting of `cls` with its value and where that came from."""
    given = given or {}
    env = environment() if env is None else env
    names = {one.name for one in fields(cls)}
    if unknown := set(given) - names:
        raise SettingsError(f"{sorted(unknown)[0]} is not a setting; known: {', '.join(sorted(names))}")
    types = get_type_hints(cls)
    return [_resolve(one.name, types[one.name], one, given, env, file or {}, given_from) for one in fields(cls)]


def _resolve(
    name: str,
    kind: Any,
    one: Any,
    given: Mapping[str, object],
    env: Mapping[str, str],
    file: Mapping[str, object],
    given_from: str,
) -> Loaded:
    if given.get(name) is not None:
        return Loaded(name, _convert(given[name], kind, f"{name} ({given_from})"), given_from)
    for variable in one.metadata.get("env", ()):
        if env.get(variable):
            value = _convert(env[variable], kind, variable)
            scale = one.metadata["scale"]
            return Loaded(name, value * scale if scale != 1 else value, f"environment {variable}")
    key = one.metadata.get("file")
    if key and (value := _at(file, key)) is not None:
        return Loaded(name, _convert(value, kind, f"worker.yaml {key}"), f"worker.yaml {key}")
    if one.default is not MISSING:
        return Loaded(name, one.default, "default")
    if one.default_factory is not MISSING:
        return Loaded(name, one.default_factory(), "default")
    variables = " or ".join(one.metadata.get("env", ()))
    raise SettingsError(f"{name} is required: set {variables}" if variables else f"{name} is required")


def _at(file: Mapping[str, object], key: str) -> object:
    value: object = file
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _convert(value: object, kind: Any, what: str) -> Any:
    if kind is bool and isinstance(value, str):
        value = {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(value.lower(), value)
    try:
        return msgspec.convert(value, kind, strict=False, dec_hook=_decode)
    except (msgspec.ValidationError, ValueError) as error:
        wanted = getattr(kind, "__name__", str(kind))
        more = "" if str(error).startswith("Expected") else f": {error}"
        raise SettingsError(f"{what}: expected {wanted}, got {value!r} ({type(value).__name__}){more}") from error


def _decode(kind: type, value: object) -> object:
    if issubclass(kind, Path):
        return Path(str(value)).expanduser()
    raise ValueError(f"cannot be read as {kind.__name__}")


def rows(cls: type[Any]) -> Iterator[tuple[str, str, str, str, str]]:
    """For the table of settings: name, environment variables, name in worker.yaml, default, what it does."""
    for one in fields(cls):
        about = one.metadata
        default = "" if one.default in (MISSING, None) else str(one.default)
        yield one.name, ", ".join(about.get("env", ())), about.get("file") or "", default, about.get("text", "")


# ------------------------------------------------------------------ worker


SPOOL_DIR = Path("~/.cache/runpod_worker/spool").expanduser()


def default_worker_id() -> str:
    """A name for this process that no other worker has."""
    return f"{re.sub('[^A-Za-z0-9_-]', '-', socket.gethostname())[:32]}-{uuid.uuid4().hex[:12]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """Everything a worker process can be told from outside (protocol B.1, B.2)."""

    url: str | None = setting(
        None,
        "RUNPOD_WORKER_URL",
        text="Job service and endpoint, `http://host:port/v2/ENDPOINT`; derives the four URLs below",
    )
    take_url: str | None = setting(None, "RUNPOD_WEBHOOK_GET_JOB", text="URL template of job-take; unset: local mode")
    done_url: str | None = setting(None, "RUNPOD_WEBHOOK_POST_OUTPUT", text="URL template of job-done")
    stream_url: str | None = setting(None, "RUNPOD_WEBHOOK_POST_STREAM", text="URL template of job-stream")
    ping_url: str | None = setting(None, "RUNPOD_WEBHOOK_PING", text="URL of the heartbeat; unset: none is sent")
    ping_interval_s: float = setting(
        10.0, "RUNPOD_PING_INTERVAL", scale=0.001, text="Time between heartbeats (the variable is in milliseconds)"
    )
    api_key: str | None = setting(
        None, "RUNPOD_AI_API_KEY", secret=True, text="Sent as the `Authorization` header, as it stands"
    )
    worker_id: str = field(
        default_factory=default_worker_id,
        metadata={"env": ("RUNPOD_POD_ID",), "text": "This worker's id; a random one by default", "scale": 1},
    )
    hostname: str = setting("unknown", "RUNPOD_POD_HOSTNAME", text="Named in the error of a failed job")
    endpoint_id: str | None = setting(
        None, "RUNPOD_ENDPOINT_ID", text="The endpoint's id; when set, log lines are JSON"
    )
    gpu: str | None = setting(None, "RUNPOD_GPU_NAME", text="GPU type told to the service with `url`")
    device: str = setting("auto", "RUNPOD_WORKER_DEVICE", file="device", text="auto, cuda, cuda:1, cpu or mps")
    concurrency: int | None = setting(
        None, "RUNPOD_WORKER_CONCURRENCY", file="concurrency", text="Jobs at once; overrides the handler's own option"
    )
    grace_s: float = setting(
        30.0,
        "RUNPOD_WORKER_GRACE",
        file="timeouts.grace",
        text="After SIGTERM, how long running jobs may go on, in seconds",
    )
    stop_grace_s: float = setting(
        5.0,
        "RUNPOD_WORKER_STOP_GRACE",
        file="timeouts.stop",
        text="How long a stopped handler may take to end before its process is killed",
    )
    load_timeout_s: float = setting(
        420.0, "RUNPOD_INIT_TIMEOUT", file="timeouts.load", text="How long loading the model may take, in seconds"
    )
    ahead_s: float = setting(
        0.5, "RUNPOD_WORKER_AHEAD", file="ahead", text="Longest time a job may be held ahead of a free slot, in seconds"
    )
    ahead_jobs: int = setting(32, "RUNPOD_WORKER_AHEAD_JOBS", text="Most jobs held ahead of one slot")
    spool_dir: Path = setting(
        SPOOL_DIR,
        "RUNPOD_WORKER_SPOOL",
        file="spool.dir",
        text="Where results wait that could not be delivered",
    )
    spool_bytes: int = setting(1 << 30, "RUNPOD_WORKER_SPOOL_BYTES", file="spool.bytes", text="Most bytes kept there")
    health_file: Path | None = setting(
        None, "RUNPOD_WORKER_HEALTH_FILE", text="Touched every 5 seconds while the worker lives, for a health check"
    )
    log_level: str = setting(
        "INFO", "RUNPOD_LOG_LEVEL", "RUNPOD_DEBUG_LEVEL", text="ERROR, WARN, INFO, DEBUG, TRACE or NOTSET"
    )

    @property
    def deployed(self) -> bool:
        """Whether there is a job service to take jobs from; otherwise the handler runs locally, once."""
        return bool(self.url or self.take_url)


def worker_settings(
    given: Mapping[str, object] | None = None,
    *,
    env: Mapping[str, str] | None = None,
    file: Mapping[str, object] | None = None,
) -> WorkerSettings:
    """The worker's settings, with the URL templates derived from `url` when that is given."""
    settings = load(WorkerSettings, given, env=env, file=file)
    if settings.url is None:
        return settings
    return _with_urls(settings, settings.url, given or {})


def _with_urls(settings: WorkerSettings, url: str, given: Mapping[str, object]) -> WorkerSettings:
    base = url.rstrip("/")
    parts = urlsplit(base)
    if parts.scheme not in ("http", "https") or not re.search(r"/v2/[^/]+$", parts.path):
        raise SettingsError(f"url: expected http(s)://host[:port]/v2/ENDPOINT, got {url!r}")
    gpu = f"?gpu={quote_plus(settings.gpu or 'cpu')}"
    me = quote(settings.worker_id, safe="")
    templates = {
        "take_url": f"{base}/job-take/{me}{gpu}",
        "done_url": f"{base}/job-done/{me}/$ID{gpu}",
        "stream_url": f"{base}/job-stream/{me}/$ID{gpu}",
        "ping_url": f"{base}/ping/{me}{gpu}",
    }
    return replace(settings, **{name: url for name, url in templates.items() if name not in given})  # type: ignore[arg-type]


def channel_fd(env: Mapping[str, str] | None = None) -> int | None:
    """The file descriptor of the agent's channel, when this process was started as an executor."""
    value = (environment() if env is None else env).get("RUNPOD_WORKER_CHANNEL_FD")
    if not value:
        return None
    if not value.isdigit():
        raise SettingsError(f"RUNPOD_WORKER_CHANNEL_FD: expected a file descriptor, got {value!r}")
    return int(value)


# ------------------------------------------------------------------ client


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """What a client needs to know when the program does not say it."""

    api_key: str | None = setting(None, "RUNPOD_API_KEY", secret=True, text="Key sent with every request")
    base_url: str = setting("https://api.runpod.ai/v2", "RUNPOD_ENDPOINT_BASE_URL", text="Where endpoints live")


def client_settings(*, env: Mapping[str, str] | None = None) -> ClientSettings:
    """The client's settings from the environment."""
    return load(ClientSettings, env=env)


# ------------------------------------------------------------------ downloads


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadSettings:
    """How files are downloaded that jobs name: `File` inputs, `job.fetch`, `rp_download` (protocol C.9)."""

    max_bytes: int = setting(5 * 2**30, "RUNPOD_MAX_DOWNLOAD_BYTES", text="Largest file that is taken")
    private: bool = setting(
        False, "RUNPOD_ALLOW_PRIVATE_DOWNLOAD_URLS", text="Reach private addresses too: loopback, your own network"
    )
    timeout_s: float = setting(
        900.0, "RUNPOD_WORKER_DOWNLOAD_TIMEOUT", text="How long one download of a job may take, in seconds"
    )
    at_once: int = setting(8, "RUNPOD_WORKER_DOWNLOADS", text="Downloads at once for jobs that are not running yet")


def download_settings(*, env: Mapping[str, str] | None = None) -> DownloadSettings:
    """The settings of downloads from the environment."""
    return load(DownloadSettings, env=env)


# ------------------------------------------------------------------ RunPod's SDK


@dataclass(frozen=True, slots=True, kw_only=True)
class SdkSettings:
    """What old code can be told by the variables of RunPod's SDK (protocol B.1, C.8, C.9)."""

    realtime_port: int = setting(
        0, "RUNPOD_REALTIME_PORT", text="Serve the local job API on this port, and nothing else"
    )
    realtime_concurrency: int = setting(1, "RUNPOD_REALTIME_CONCURRENCY", text="Jobs at once there")
    skip_system_checks: bool = setting(
        False, "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS", text="Leave out the checks of memory and disk before the first job"
    )
    skip_gpu_check: bool = setting(False, "RUNPOD_SKIP_GPU_CHECK", text="Leave out the check of the GPU")
    min_memory_gb: float = setting(4.0, "RUNPOD_MIN_MEMORY_GB", text="Least memory that must be available")
    min_disk_percent: float = setting(10.0, "RUNPOD_MIN_DISK_PERCENT", text="Least part of the disk that must be free")
    bucket_url: str | None = setting(None, "BUCKET_ENDPOINT_URL", text="S3 service that `rp_upload` uploads to")
    bucket_key: str | None = setting(None, "BUCKET_ACCESS_KEY_ID", text="Access key there")
    bucket_secret: str | None = setting(None, "BUCKET_SECRET_ACCESS_KEY", secret=True, text="Its secret")
    sdk_log_level: str = setting(
        "DEBUG", "RUNPOD_LOG_LEVEL", "RUNPOD_DEBUG_LEVEL", text="Level of the handler's own `RunPodLogger` lines"
    )


def sdk_settings(*, env: Mapping[str, str] | None = None) -> SdkSettings:
    """The SDK's settings from the environment."""
    return load(SdkSettings, env=env)
