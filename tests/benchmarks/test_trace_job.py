"""The trace of one job: which processes, files and calls it finds."""

from __future__ import annotations

from pathlib import Path

from tools import trace_job
from tools.trace_job import Call

ROOT = Path(__file__).parents[2]
CALLS = [
    Call(1, "service", "service/http/app.py", "App.handle"),
    Call(2, "service", "service/http/app.py", "App._answer"),
    Call(3, "agent", "worker/link/http.py", "HttpLink.take"),
    Call(4, "service", "service/http/app.py", "App.handle"),
    Call(5, "service", "service/http/app.py", "App.handle"),
]


def test_calls_functions_and_files_are_counted_by_process() -> None:
    rows = [line.split() for line in trace_job.format_summary(CALLS)]

    assert rows == [
        ["calls", "functions", "files"],
        ["all", "5", "3", "2"],
        ["service", "4", "2", "1"],
        ["agent", "1", "1", "1"],
        ["executor", "0", "0", "0"],
    ]


def test_a_hop_is_a_stay_in_a_file() -> None:
    assert [" ".join(line.split()) for line in trace_job.format_hops(CALLS)] == [
        "service service/http/app.py App.handle, App._answer",
        "agent worker/link/http.py HttpLink.take",
        "service service/http/app.py App.handle x2",
    ]


async def test_a_real_job_passes_through_service_agent_and_executor() -> None:
    calls = await trace_job.trace(ROOT, jobs=2)

    files = {process: {call.file for call in calls if call.process == process} for process in trace_job.PROCESSES}
    assert "service/http/app.py" in files["service"]
    assert min(len(files[process]) for process in files) > 3
    assert calls == sorted(calls)
