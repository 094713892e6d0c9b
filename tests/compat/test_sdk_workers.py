"""The reference SDK of many versions as the worker of our service, as real processes.

The suite runs the newest version; `make compat` runs all of them and prints the matrix.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tools.compat_environments import VERSIONS

HANDLER = str(Path(__file__).parent / "sdk_handler.py")
EVERY = os.environ.get("COMPAT") == "all"
TRIED = pytest.mark.parametrize("version", VERSIONS if EVERY else VERSIONS[-1:])
STARTS_BESIDE = "1.9.1"
"""The first that always starts a job it has taken while another one runs; the jobs of older ones may wait."""

STOPS = "1.10.0"
"""The first version that listens to job-stop."""

FAILS_ON_YIELDED_ERROR = "1.7.13"
"""The first of these that takes a yielded error for one; to older ones it is a chunk like any other."""

FORGETS_RAISING_GENERATORS = ("1.5.3",)
"""Its logger cannot write the exception: it reports nothing, and pings for the job without end.
What ends it is its executionTimeout."""

KNOWS_SIGTERM = "1.7.13"
"""The first of these that does not simply die of it."""


Start = Callable[..., Any]

pytestmark = pytest.mark.slow


@pytest.fixture
def start(site: Any, version: str, sdk: Callable[[str], Path]) -> Start:
    """Start a worker of this version: `start(KIND="generator")`."""
    python = sdk(version)

    def start_worker(**env: str) -> Any:
        return site.worker(str(python), "-u", HANDLER, **env)

    return start_worker


def is_old(version: str, than: str) -> bool:
    return [int(n) for n in version.split(".")] < [int(n) for n in than.split(".")]


@TRIED
def test_everything_that_a_function_does(site: Any, start: Start, version: str, tmp_path: Path) -> None:
    """Checks many promises with one worker, because it takes seconds to start."""
    site.serve("--lease", "2")
    start()

    for value in ("text", {"a": [1, None, "ünï 😀"]}, []):  # return values
        view = site.ended(site.run({"return": value}))
        assert (view["status"], view["output"]) == ("COMPLETED", value)
    assert site.ended(site.run({}))["output"] == {"echo": {}}

    view = site.ended(site.run({"raise": "bøøm"}))  # errors
    assert (view["status"], "bøøm" in view["error"] or "b\\u00f8\\u00f8m" in view["error"]) == ("FAILED", True)
    view = site.ended(site.run({"return": {"error": "too dark", "rest": 1}}))
    assert (view["status"], view["error"]) == ("FAILED", "too dark")
    view = site.ended(site.run({"return": {"error": {"code": 7}}}))
    assert view["status"] == "FAILED"
    assert isinstance(view["error"], str)

    view = site.ended(site.run({"odd": "nan"}))  # NaN is no JSON, and is not passed on
    assert (view["status"], view["output"]) == ("COMPLETED", {"value": None})

    release = tmp_path / "gate"  # longer than the lease: pings keep it, and progress is seen
    job = site.run({"progress": [{"percent": 50}], "until": str(release), "return": "end"})
    site.until(lambda: site.status(job).get("output") == {"percent": 50}, "progress is seen")
    assert site.get(f"status-sync/{job}?wait=3500")["status"] == "IN_PROGRESS"
    release.touch()
    view = site.ended(job)
    assert (view["status"], view["output"], view.get("retries", 0)) == ("COMPLETED", "end", 0)

    for n in range(2):  # progress that races the result, and comes late, changes nothing
        assert site.ended(site.run({"progress": [1, 2, 3, 4, 5], "return": n}))["output"] == n
    assert site.ended(site.run({"return": "last"}))["output"] == "last"
    jobs = site.health()["jobs"]
    assert (jobs["inProgress"], jobs["inQueue"], jobs["retried"]) == (0, 0, 0)


@TRIED
@pytest.mark.parametrize("kind", ["generator", "async_generator"] if EVERY else ["async_generator"])
def test_generators_stream(site: Any, start: Start, version: str, kind: str) -> None:
    site.serve()
    start(KIND=kind)

    job = site.run({"yield": ["a", {"b": 1}, "ü"]})
    assert site.stream(job) == ("COMPLETED", ["a", {"b": 1}, "ü"])

    job = site.run({"yield": ["a", {"error": {"message": "m"}}, "b"]})
    expected = "COMPLETED" if is_old(version, FAILS_ON_YIELDED_ERROR) else "FAILED"
    assert site.ended(job)["status"] == expected

    job = site.run({"yield": ["a"], "raise": "broke"}, policy={"executionTimeout": 5000})
    assert site.stream(job) == ("FAILED", ["a"])
    expected = "executionTimeout exceeded" if version in FORGETS_RAISING_GENERATORS else "broke"
    assert expected in site.ended(job)["error"]


@TRIED
def test_an_aggregated_stream_is_the_output(site: Any, start: Start) -> None:
    site.serve()
    start(KIND="async_generator", AGGREGATE="1")

    assert site.ended(site.run({"yield": ["a", "b"]}))["output"] == ["a", "b"]


@TRIED
def test_several_jobs_at_once(site: Any, start: Start, version: str, tmp_path: Path) -> None:
    site.serve()
    start(KIND="coroutine", SLOTS="3")
    for n in range(3):  # concurrency is raised with the first jobs
        assert site.ended(site.run({"return": n}))["output"] == n
    marks = [tmp_path / f"mark{n}" for n in range(3)]
    release = tmp_path / "gate"

    jobs = [site.run({"mark": str(mark), "until": str(release), "return": mark.name}) for mark in marks]
    if not is_old(version, STARTS_BESIDE):
        site.until(lambda: all(mark.exists() for mark in marks), "three jobs run at once")
    release.touch()

    assert [site.ended(job)["output"] for job in jobs] == [mark.name for mark in marks]


@TRIED
def test_cancelling_a_running_job(site: Any, start: Start, version: str, tmp_path: Path) -> None:
    site.serve("--lease", "5")
    start(KIND="coroutine")
    mark, release = tmp_path / "mark", tmp_path / "gate"
    job = site.run({"mark": str(mark), "until": str(release), "return": "too late"})
    site.until(mark.exists, "the handler runs")

    assert site.post(f"cancel/{job}")["status"] == "CANCELLED"
    if is_old(version, STOPS):  # it got no stop: the handler continues, and the service drops its result
        release.touch()
    following = site.run({"return": "next"})

    assert site.ended(following)["output"] == "next"
    view = site.status(job)
    assert (view["status"], view.get("output")) == ("CANCELLED", None)


@TRIED
def test_a_stop_that_a_function_ignores_does_no_harm(site: Any, start: Start, tmp_path: Path) -> None:
    site.serve()
    start(KIND="function")
    mark, release = tmp_path / "mark", tmp_path / "gate"
    job = site.run({"mark": str(mark), "until": str(release), "return": "too late"})
    site.until(mark.exists, "the handler runs")

    site.post(f"cancel/{job}")
    release.touch()

    assert site.ended(site.run({"return": "next"}))["output"] == "next"
    assert site.status(job)["status"] == "CANCELLED"


@TRIED
def test_output_that_is_never_sent_fails_when_its_lease_expires(site: Any, start: Start, version: str) -> None:
    """The SDK logs that the output is not JSON, and reports nothing."""
    site.serve("--lease", "1.5")
    start()

    view = site.ended(site.run({"odd": "object"}))

    assert (view["status"], view["error"]) == ("FAILED", "job timed out after 1 retries")
    assert site.ended(site.run({"return": "next"}))["output"] == "next"


@TRIED
def test_a_crashed_worker_loses_its_job_to_another(site: Any, start: Start, tmp_path: Path) -> None:
    site.serve("--lease", "2")
    first = start()
    mark, release = tmp_path / "mark", tmp_path / "gate"
    job = site.run({"mark": str(mark), "until": str(release), "return": "second time"})
    site.until(mark.exists, "the handler runs")

    os.kill(first.process.pid, signal.SIGKILL)  # not its ping process, which in some versions survives as an orphan
    first.process.wait(20)
    orphan = _has_orphan(first)
    release.touch()
    start()
    if orphan:
        first.kill_all()  # as the platform does with the whole container

    view = site.ended(job)
    assert (view["status"], view["output"], view["retries"]) == ("COMPLETED", "second time", 1)


def _has_orphan(worker: Any) -> bool:
    try:
        os.killpg(worker.process.pid, 0)
    except ProcessLookupError:
        return False
    return True


@TRIED
def test_a_ping_process_without_its_worker_cannot_keep_a_job(site: Any, start: Start, tmp_path: Path) -> None:
    site.serve("--lease", "2")
    worker = start()
    mark = tmp_path / "mark"
    job = site.run({"mark": str(mark), "until": "never"}, policy={"executionTimeout": 5000})
    site.until(mark.exists, "the handler runs")

    os.kill(worker.process.pid, signal.SIGKILL)
    worker.process.wait(20)
    orphan = _has_orphan(worker)
    view = site.until(lambda: _lost_or_over(site, job), "the service gives the worker up")

    assert (view["status"] == "FAILED") is orphan
    if orphan:
        assert view["error"] == "executionTimeout exceeded"


def _lost_or_over(site: Any, job: str) -> Any:
    view = site.status(job)
    return view if view["status"] in ("FAILED", "IN_QUEUE") else None


@TRIED
def test_a_worker_that_asks_to_be_replaced_gets_no_more_jobs(site: Any, start: Start, tmp_path: Path) -> None:
    site.serve()
    first = start(REFRESH="1")
    assert site.ended(site.run({"return": 1}))["workerId"] == first.name

    following = site.run({"return": 2})
    assert site.status(following)["status"] == "IN_QUEUE"
    other = start()

    view = site.ended(following)
    assert (view["workerId"], view["output"]) == (other.name, 2)


@TRIED
def test_sigterm_loses_no_job(site: Any, start: Start, version: str, tmp_path: Path) -> None:
    site.serve("--lease", "2")
    worker = start(KIND="coroutine")
    mark, release = tmp_path / "mark", tmp_path / "gate"
    job = site.run({"mark": str(mark), "until": str(release), "return": "finished"})
    site.until(mark.exists, "the handler runs")

    worker.signal(signal.SIGTERM)
    release.touch()
    if is_old(version, KNOWS_SIGTERM):
        worker.process.wait(20)
        start()
    view = site.ended(job)

    assert (view["status"], view["output"]) == ("COMPLETED", "finished")
