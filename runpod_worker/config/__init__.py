"""Settings: the only reader of the environment, the command line's values and worker.yaml.

loading  `setting`, `load`, `resolve`: the value of each setting
bounds   the values that a setting accepts
env      the process's environment, read and filled
worker   the settings of a worker process
groups   the settings of the client, of downloads and of RunPod's SDK
"""

from runpod_worker.config.bounds import MAX_SETTING_BYTES, MAX_TIME_S, is_url
from runpod_worker.config.env import channel_fd, environment, fill_environment, put_on_python_path
from runpod_worker.config.groups import (
    ClientSettings,
    DownloadSettings,
    SdkSettings,
    client_settings,
    download_settings,
    sdk_settings,
)
from runpod_worker.config.loading import (
    Loaded,
    Old,
    Option,
    file_keys,
    load,
    options,
    resolve,
    rows,
    setting,
    warn_of_unknown,
)
from runpod_worker.config.worker import (
    SPOOL_DIR,
    WorkerSettings,
    default_worker_id,
    executor_settings,
    platform_variables,
    worker_settings,
)

__all__ = [
    "MAX_SETTING_BYTES",
    "MAX_TIME_S",
    "SPOOL_DIR",
    "ClientSettings",
    "DownloadSettings",
    "Loaded",
    "Old",
    "Option",
    "SdkSettings",
    "WorkerSettings",
    "channel_fd",
    "client_settings",
    "default_worker_id",
    "download_settings",
    "environment",
    "executor_settings",
    "file_keys",
    "fill_environment",
    "is_url",
    "load",
    "options",
    "platform_variables",
    "put_on_python_path",
    "resolve",
    "rows",
    "sdk_settings",
    "setting",
    "warn_of_unknown",
    "worker_settings",
]
