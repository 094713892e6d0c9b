"""The package's logger, and the two formats of its lines.

A line is an event and its fields, never prose: `log.info("job.finished", extra={"job": id, "execution_ms": 12})`.
docs/logging.md lists the events.
"""

from __future__ import annotations

import contextvars
import json
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TextIO

from runpod_worker.core.errors import SettingsError

log = logging.getLogger("runpod_worker")

job_id: contextvars.ContextVar[str | None] = contextvars.ContextVar("job_id", default=None)
"""The job whose handler runs in this context. Every log line from the context carries it."""

LEVELS = "ERROR, WARN, INFO, DEBUG, TRACE or NOTSET"
LEVEL_PATTERN = "(?i:ERROR|WARN|WARNING|INFO|DEBUG|TRACE|NOTSET|CRITICAL|FATAL)"
"""Matches the names of levels that `setup` accepts."""

_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_SURROGATE = re.compile("[\ud800-\udfff]")

_PLAIN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def fields(record: logging.LogRecord) -> dict[str, object]:
    """The `extra` of a record, with the job id of the context unless `extra` has its own."""
    extra = {key: value for key, value in record.__dict__.items() if key not in _PLAIN}
    current = job_id.get()
    if current is not None:
        extra.setdefault("job", current)
    return extra


class _Formatter(logging.Formatter):
    """Knows the time of a record, which `dated` lines show in full."""

    def __init__(self, *, dated: bool = False) -> None:
        super().__init__()
        self._dated = dated

    def time(self, record: logging.LogRecord) -> str:
        """The time of day here, or date and time in UTC as ISO 8601."""
        if self._dated:
            return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        return self.formatTime(record, "%H:%M:%S")


class TextFormatter(_Formatter):
    """`12:03:04 INFO job.finished job=abc execution_ms=12`, for people."""

    def format(self, record: logging.LogRecord) -> str:
        pairs = "".join(f" {key}={value}" for key, value in fields(record).items())
        line = f"{self.time(record)} {record.levelname:<7} {record.getMessage()}{pairs}"
        line = _UNSAFE.sub(_escape, line)  # a value from outside must not look like a line of ours
        return line + (f"\n{self.formatException(record.exc_info)}" if record.exc_info else "")


class JsonFormatter(_Formatter):
    """One JSON object a line, with RunPod's keys `requestId`, `message`, `level` (protocol C.6); `time` if dated."""

    def format(self, record: logging.LogRecord) -> str:
        extra = fields(record)
        line = {"requestId": extra.pop("job", None), "message": record.getMessage(), "level": record.levelname} | extra
        if self._dated:
            line = {"time": self.time(record)} | line
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return _SURROGATE.sub(_escape, json.dumps(line, default=str, ensure_ascii=False))


def _escape(match: re.Match[str]) -> str:
    return ascii(match[0])[1:-1]


@contextmanager
def log_errors(loop: str, **entry: object) -> Iterator[None]:
    """Log an exception of the block and go on, because the failure of one entry must not end a loop that serves all.

    `entry` names the entry, as in `job=job_id`.
    """
    try:
        yield
    except Exception:
        log.exception("entry.failed", extra={"loop": loop, **entry})


def setup(level: str = "INFO", *, as_json: bool = False, dated: bool = False, stream: TextIO | None = None) -> None:
    """Write the package's log lines to `stream`, by default standard error. Programs call it, never the library.

    `dated` lines have date and time in UTC: workers leave that to the platform that collects their lines.

    Raises:
        SettingsError: there is no such level.
    """
    name = {"TRACE": "DEBUG", "NOTSET": "CRITICAL", "WARN": "WARNING"}.get(level.upper(), level.upper())
    if name not in logging.getLevelNamesMapping():
        raise SettingsError(f"log level: expected {LEVELS}, got {level!r}")
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter(dated=dated) if as_json else TextFormatter(dated=dated))
    log.handlers[:] = [handler]
    log.setLevel(name)
    log.propagate = False
