"""The settings of the client, of downloads and of code for RunPod's SDK."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from runpod_worker.config.bounds import MAX_SETTING_BYTES, MAX_TIME_S
from runpod_worker.config.loading import Old, load, setting
from runpod_worker.log import LEVEL_PATTERN, LEVELS


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """Defaults of a client. They apply where the program gives no value."""

    api_key: str | None = setting(None, "RUNPOD_API_KEY", secret=True, text="Key sent with every request")
    base_url: str = setting(
        "https://api.runpod.ai/v2", "RUNPOD_ENDPOINT_BASE_URL", url=True, text="Where endpoints live"
    )


def client_settings(*, env: Mapping[str, str] | None = None) -> ClientSettings:
    """Return the client's settings from the environment."""
    return load(ClientSettings, env=env)


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadSettings:
    """Downloads of files that jobs name: `File` inputs, `job.fetch`, `rp_download` (protocol C.9)."""

    max_bytes: int = setting(
        5 * 2**30, "RUNPOD_MAX_DOWNLOAD_BYTES", minimum=1, maximum=MAX_SETTING_BYTES, text="Refuse larger files"
    )
    private: bool = setting(
        False, "RUNPOD_ALLOW_PRIVATE_DOWNLOAD_URLS", text="Reach private addresses too: loopback, your own network"
    )
    timeout_s: float = setting(
        900.0,
        "RUNPOD_WORKER_DOWNLOAD_TIMEOUT",
        minimum=0.001,
        maximum=MAX_TIME_S,
        text="How long one download of a job may take, in seconds",
    )
    max_concurrent: int = setting(
        8,
        "RUNPOD_WORKER_DOWNLOADS",
        minimum=1,
        maximum=1000,
        text="Concurrent downloads for jobs that do not run yet",
        old=Old(name="at_once"),
    )


def download_settings(*, env: Mapping[str, str] | None = None) -> DownloadSettings:
    """Return the settings of downloads from the environment."""
    return load(DownloadSettings, env=env)


@dataclass(frozen=True, slots=True, kw_only=True)
class SdkSettings:
    """The variables of RunPod's SDK, for handlers that were written for it (protocol B.1, C.8, C.9)."""

    realtime_port: int = setting(
        0,
        "RUNPOD_REALTIME_PORT",
        minimum=0,
        maximum=65535,
        text="Serve the local job API on this port, and nothing else",
    )
    realtime_concurrency: int = setting(
        1, "RUNPOD_REALTIME_CONCURRENCY", minimum=1, maximum=10_000, text="Concurrent jobs there"
    )
    skip_system_checks: bool = setting(
        False, "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS", text="Skip the checks of memory and disk before the first job"
    )
    skip_gpu_check: bool = setting(False, "RUNPOD_SKIP_GPU_CHECK", text="Skip the check of the GPU")
    min_memory_gb: float = setting(4.0, "RUNPOD_MIN_MEMORY_GB", minimum=0, text="Least memory that must be available")
    min_disk_percent: float = setting(
        10.0, "RUNPOD_MIN_DISK_PERCENT", minimum=0, maximum=100, text="Least part of the disk that must be free"
    )
    bucket_url: str | None = setting(
        None, "BUCKET_ENDPOINT_URL", url=True, text="S3 service that `rp_upload` uploads to"
    )
    bucket_key: str | None = setting(None, "BUCKET_ACCESS_KEY_ID", text="Access key there")
    bucket_secret: str | None = setting(None, "BUCKET_SECRET_ACCESS_KEY", secret=True, text="Its secret")
    sdk_log_level: str = setting(
        "DEBUG",
        "RUNPOD_LOG_LEVEL",
        "RUNPOD_DEBUG_LEVEL",
        pattern=LEVEL_PATTERN,
        words=LEVELS,
        text="Level of the handler's own `RunPodLogger` lines",
    )


def sdk_settings(*, env: Mapping[str, str] | None = None) -> SdkSettings:
    """Return the SDK's settings from the environment."""
    return load(SdkSettings, env=env)
