"""Log lines of handlers, in the format of RunPod's SDK (protocol C.6).

On the platform a line is a JSON object, `{"requestId": ..., "message": ..., "level": ...}`; elsewhere it is
`INFO   | id | text`. A line without an id gets the id of the job whose handler writes it.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from runpod_worker.config import sdk_settings, worker_settings
from runpod_worker.log import job_id as current_job

MAX_MESSAGE_LENGTH = 64 * 1024
"""Characters; a longer message loses its middle."""

LOG_LEVELS = ["NOTSET", "TRACE", "DEBUG", "INFO", "WARN", "ERROR"]
TIP = "TIP"
"""Not a level: tips are written at every level except NOTSET."""


class RunPodLogger:
    """The logger of the process, a singleton. Its level is RUNPOD_LOG_LEVEL, or RUNPOD_DEBUG_LEVEL, or DEBUG."""

    _instance: RunPodLogger | None = None
    level: str
    _as_json: bool

    def __new__(cls) -> RunPodLogger:
        if cls._instance is None:
            made = super().__new__(cls)
            made.level = _level(sdk_settings().sdk_log_level)
            made._as_json = bool(worker_settings().endpoint_id)
            cls._instance = made
        return cls._instance

    def set_level(self, new_level: str | int) -> None:
        """Write lines of this level and above: a name or an index of LOG_LEVELS. NOTSET writes none."""
        self.level = _level(new_level)
        self.info(f"Log level set to {self.level}")

    def log(self, message: Any, message_level: str = "INFO", job_id: str | None = None) -> None:
        """Write a line if its level is high enough."""
        if self.level == "NOTSET":
            return
        if message_level != TIP and LOG_LEVELS.index(_level(message_level)) < LOG_LEVELS.index(self.level):
            return
        self._write(_truncate(str(message)), message_level, job_id or current_job.get())

    def _write(self, message: str, level: str, job_id: str | None) -> None:
        if self._as_json:
            line = json.dumps({"requestId": job_id, "message": message, "level": level})
        else:
            line = f"{level.ljust(7)}| {f'{job_id} | ' if job_id else ''}{message}"
        sys.stdout.write(line + "\n")  # one write, so that lines of several threads do not mix
        sys.stdout.flush()

    def secret(self, secret_name: str, secret: Any) -> None:
        """Write the first and last character of a secret."""
        text = str(secret)
        hidden = text[0] + "*" * (len(text) - 2) + text[-1] if len(text) > 2 else "*" * len(text)
        self.info(f"{secret_name}: {hidden}")

    def debug(self, message: Any, request_id: str | None = None, job_id: str | None = None) -> None:
        """Write a DEBUG line. Here and below, `job_id` is the older name of `request_id`."""
        self.log(message, "DEBUG", request_id or job_id)

    def info(self, message: Any, request_id: str | None = None, job_id: str | None = None) -> None:
        """Write an INFO line."""
        self.log(message, "INFO", request_id or job_id)

    def warn(self, message: Any, request_id: str | None = None, job_id: str | None = None) -> None:
        """Write a WARN line."""
        self.log(message, "WARN", request_id or job_id)

    def error(self, message: Any, request_id: str | None = None, job_id: str | None = None) -> None:
        """Write an ERROR line."""
        self.log(message, "ERROR", request_id or job_id)

    def trace(self, message: Any, request_id: str | None = None, job_id: str | None = None) -> None:
        """Write a TRACE line."""
        self.log(message, "TRACE", request_id or job_id)

    def tip(self, message: Any) -> None:
        """Write a TIP line."""
        self.log(message, TIP)


def _level(level: str | int) -> str:
    if isinstance(level, str) and level.upper() in LOG_LEVELS:
        return level.upper()
    if isinstance(level, int) and not isinstance(level, bool) and 0 <= level < len(LOG_LEVELS):
        return LOG_LEVELS[level]
    raise ValueError(f"Invalid debug level: {level}")


def _truncate(message: str) -> str:
    excess = len(message) - MAX_MESSAGE_LENGTH
    if excess <= 0:
        return message
    half = MAX_MESSAGE_LENGTH // 2
    return f"{message[:half]}\n...TRUNCATED {excess} CHARACTERS...\n{message[-half:]}"
