"""The handler's own log lines, in the SDK's format (protocol C.6).

On the platform one JSON object a line, `{"requestId": ..., "message": ..., "level": ...}`; else `INFO   | id | text`.
A line without an id carries that of the job whose handler writes it.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from runpod_worker.config import sdk_settings, worker_settings
from runpod_worker.log import job_id as current_job

MAX_MESSAGE_LENGTH = 64 * 1024
LOG_LEVELS = ["NOTSET", "TRACE", "DEBUG", "INFO", "WARN", "ERROR"]
TIP = "TIP"
"""Not a level: such lines are written whatever the level, unless that is NOTSET."""


class RunPodLogger:
    """The one logger of a process. Its level is RUNPOD_LOG_LEVEL, else RUNPOD_DEBUG_LEVEL, else DEBUG."""

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
        """Write lines of this level (a name, or its place in LOG_LEVELS) and above. NOTSET: none at all."""
        self.level = _level(new_level)
        self.info(f"Log level set to {self.level}")

    def log(self, message: Any, message_level: str = "INFO", job_id: str | None = None) -> None:
        """Write a line if its level is high enough."""
        if self.level == "NOTSET":
            return
        if message_level != TIP and LOG_LEVELS.index(_level(message_level)) < LOG_LEVELS.index(self.level):
            return
        self._write(_shortened(str(message)), message_level, job_id or current_job.get())

    def _write(self, message: str, level: str, job_id: str | None) -> None:
        if self._as_json:
            line = json.dumps({"requestId": job_id, "message": message, "level": level})
        else:
            line = f"{level.ljust(7)}| {f'{job_id} | ' if job_id else ''}{message}"
        sys.stdout.write(line + "\n")  # one write: lines of several threads stay whole
        sys.stdout.flush()

    def secret(self, secret_name: str, secret: Any) -> None:
        """Write a secret's first and last character."""
        text = str(secret)
        hidden = text[0] + "*" * (len(text) - 2) + text[-1] if len(text) > 2 else "*" * len(text)
        self.info(f"{secret_name}: {hidden}")

    def debug(self, message: Any, request_id: str | None = None, job_id: str | None = None) -> None:
        """Write a DEBUG line. `job_id` is what older code calls `request_id`, here and below."""
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


def _shortened(message: str) -> str:
    left_out = len(message) - MAX_MESSAGE_LENGTH
    if left_out <= 0:
        return message
    half = MAX_MESSAGE_LENGTH // 2
    return f"{message[:half]}\n...TRUNCATED {left_out} CHARACTERS...\n{message[-half:]}"
