"""Every URL of RunPod's worker protocol (protocol B.2), prepared once."""

from __future__ import annotations

import re
from collections.abc import Collection
from urllib.parse import quote, urlencode

from runpod_worker.config import WorkerSettings
from runpod_worker.core.errors import SettingsError
from runpod_worker.core.protocol import SDK_VERSION

MAX_REASON_CHARS = 256
"""A longer reason for a failed fitness check is cut: it travels in a URL."""

MAX_JOB_IDS_CHARS = 4000
"""A heartbeat that lists more job ids, percent-encoded, is sent in parts: servers refuse request lines over 8 KB."""

_COMMA = quote(",", safe="")
_SAFE_ID = re.compile(r"[A-Za-z0-9_.~-]+").fullmatch
_DONE_WORKER = re.compile(r"(/job-done/)[^/?]+(?=/)")


class Urls:
    """The URLs of one worker. `stop` and `ping` are None where the settings do not lead to one."""

    def __init__(self, settings: WorkerSettings) -> None:
        if not settings.take_url or not settings.done_url:
            done, take = "done_url (RUNPOD_WEBHOOK_POST_OUTPUT)", "take_url (RUNPOD_WEBHOOK_GET_JOB)"
            raise SettingsError(f"{done if settings.take_url else take} is required to take jobs")
        worker_id = settings.worker_id
        # The reference SDK replaces only $ID here. If a template has $RUNPOD_POD_ID, it means the worker's id too.
        take = settings.take_url.replace("$RUNPOD_POD_ID", worker_id).replace("$ID", worker_id)
        self._single = [with_parameter(take, f"job_in_progress={flag}") for flag in (0, 1)]
        self._batch = take.replace("/job-take/", "/job-take-batch/") if "/job-take/" in take else None
        self.stop = take.replace("/job-take/", "/job-stop/") if "/job-take/" in take else None
        self.release = take.replace("/job-take/", "/job-return/").partition("?")[0]
        done = settings.done_url.replace("$RUNPOD_POD_ID", worker_id)
        stream = (settings.stream_url or settings.done_url.replace("/job-done/", "/job-stream/")).replace(
            "$RUNPOD_POD_ID", worker_id
        )
        self._done = [with_parameter(done, f"isStream={flag}") for flag in ("false", "true")]
        self.endpoint = done.partition("/job-done/")[0]
        self._stream = with_parameter(stream, "isStream=false")
        self.ping = settings.ping_url.replace("$RUNPOD_POD_ID", worker_id) if settings.ping_url else None

    def take(self, count: int, busy: bool) -> str:
        """Return the URL of a take for `count` jobs."""
        if count <= 1 or self._batch is None:
            return self._single[busy]
        return with_parameter(self._batch, f"batch_size={count}&job_in_progress={int(busy)}")

    def done(self, job_id: str, is_stream: bool, worker_id: str | None = None) -> str:
        """Return the URL of a job's outcome and progress.

        `worker_id`: another worker ran the job. The service compares worker and lease.
        """
        url = self._done[is_stream]
        if worker_id is not None:
            url = _DONE_WORKER.sub(lambda match: match[1] + quote(worker_id, safe=""), url)
        return url.replace("$ID", _segment(job_id))

    def stream(self, job_id: str) -> str:
        """Return the URL of a job's chunks."""
        return self._stream.replace("$ID", _segment(job_id))

    def heartbeats(self, job_ids: Collection[str]) -> list[str]:
        """Return the URLs of a heartbeat that lists these jobs: one, or several parts."""
        parts, size = [""], 0
        for job_id in (quote(job_id, safe="") for job_id in job_ids):
            size += len(job_id) + len(_COMMA)
            if not parts[-1]:
                parts[-1] = job_id
            elif size <= MAX_JOB_IDS_CHARS:
                parts[-1] += _COMMA + job_id
            else:
                parts.append(job_id)
                size = len(job_id)
        urls = [with_parameter(self.ping or "", f"job_id={part}") if part else self.ping or "" for part in parts]
        return [with_parameter(url, f"runpod_version={SDK_VERSION}") for url in urls]

    def unhealthy(self, check: str, reason: str) -> str:
        """Return the URL that reports a failed fitness check."""
        fields = {
            "status": "unhealthy",
            "check": check,
            "reason": reason[:MAX_REASON_CHARS],
            "runpod_version": SDK_VERSION,
        }
        return with_parameter(self.ping or "", urlencode(fields))


def with_parameter(url: str, parameter: str) -> str:
    """Append a query parameter, with `&` or `?` as the URL needs it."""
    return f"{url}{'&' if '?' in url else '?'}{parameter}"


def file_url(files_url: str, job_id: str, token: str, name: str) -> str:
    """Return the URL of one output file, to store and to read it."""
    return "/".join([files_url.rstrip("/"), *(quote(part, safe="") for part in (job_id, token, name))])


def _segment(job_id: str) -> str:
    return job_id if _SAFE_ID(job_id) else quote(job_id, safe="")
