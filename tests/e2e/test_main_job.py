"""The main job, for real: a caller, the service, a worker's agent and its executor, each a process of its own."""

import json
import os
import signal
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

Fleet = Any

ALL_KINDS = """
@worker.model
def load():
    with open(os.environ["LOADS"], "a") as file:
        file.write("loaded ")
    return "model"

@worker.handler
def handler(job, model):
    want = job["input"]
    if "raise" in want:
        raise ValueError(want["raise"])
    if "exit" in want:
        sys.exit(3)
    if "die" in want:
        os.kill(os.getpid(), 9)
    if "set" in want:
        return {"images": [object()]}
    return {"model": model, "echo": want}
"""


def test_a_job_goes_through_and_the_model_is_loaded_once(workers: Fleet, tmp_path: Path) -> None:
    workers.worker(ALL_KINDS, env={"LOADS": str(tmp_path / "loads")})

    views = [workers.post("runsync", {"input": {"n": n}}) for n in range(20)]

    assert [view["output"] for view in views] == [{"model": "model", "echo": {"n": n}} for n in range(20)]
    assert {view["status"] for view in views} == {"COMPLETED"}
    assert {"delayTime", "executionTime", "gpu", "id", "input", "output", "status"} <= views[0].keys()
    assert (tmp_path / "loads").read_text() == "loaded "


def test_every_way_to_fail_is_reported_at_once_and_the_worker_goes_on(workers: Fleet, tmp_path: Path) -> None:
    workers.worker(ALL_KINDS, env={"LOADS": str(tmp_path / "loads")})

    raised = workers.post("runsync", {"input": {"raise": "no such style"}})
    assert raised["status"] == "FAILED"
    assert json.loads(raised["error"])["error_type"] == "<class 'ValueError'>"
    assert json.loads(raised["error"])["error_message"] == "no such style"

    left = workers.post("runsync", {"input": {"exit": 1}})
    assert left["status"] == "FAILED"
    assert "SystemExit" in left["error"]

    unsendable = workers.post("runsync", {"input": {"set": 1}})
    assert unsendable["status"] == "FAILED"
    assert "output.images[0]" in unsendable["error"]
    assert "object" in unsendable["error"]

    died = workers.post("runsync", {"input": {"die": 1}})
    assert died["status"] == "FAILED"
    assert "SIGKILL" in died["error"]

    assert workers.post("runsync", {"input": {}})["output"] == {"model": "model", "echo": {}}


def test_streams_reach_the_caller_chunk_by_chunk(workers: Fleet) -> None:
    workers.worker(
        """
        @worker.handler(aggregate=True)
        async def handler(job):
            for n in range(job["input"]["n"]):
                yield {"token": n}
        """
    )
    job = workers.run({"n": 500})
    chunks: list[Any] = []

    while True:
        reply = workers.get(f"stream/{job}")
        chunks += [chunk["output"] for chunk in reply["stream"]]
        if reply["status"] == "COMPLETED":
            break

    assert chunks == [{"token": n} for n in range(500)]
    assert workers.ended(job)["output"] == chunks


def test_a_running_sync_handler_stops_when_its_job_is_cancelled(workers: Fleet, tmp_path: Path) -> None:
    workers.worker(
        """
        @worker.handler
        def handler(job):
            if "s" in job["input"]:
                open(job["input"]["entered"], "w").close()
                time.sleep(job["input"]["s"])
            return "done"
        """
    )
    entered = tmp_path / "entered"
    job = workers.run({"s": 300, "entered": str(entered)})
    workers.until(entered.exists, "the handler is entered")

    cancelled = workers.post(f"cancel/{job}", {})

    assert cancelled["status"] == "CANCELLED"
    assert workers.post("runsync", {"input": {}})["output"] == "done"
    assert workers.get(f"status/{job}")["status"] == "CANCELLED"


def test_sigterm_finishes_what_runs_and_leaves_with_zero(workers: Fleet, tmp_path: Path) -> None:
    worker = workers.worker(
        """
        @worker.handler
        def handler(job):
            open(job["input"]["entered"], "w").close()
            time.sleep(1)
            return "finished"
        """
    )
    entered = tmp_path / "entered"
    running, waiting = workers.run({"entered": str(entered)}), workers.run({"entered": str(tmp_path / "never")})
    workers.until(entered.exists, "the handler is entered")

    worker.send_signal(signal.SIGTERM)

    assert worker.wait(30) == 0
    assert workers.get(f"status/{running}")["output"] == "finished"
    assert workers.get(f"status/{waiting}")["status"] == "IN_QUEUE"


def test_the_same_file_is_a_worker_when_python_runs_it(workers: Fleet) -> None:
    file = workers.folder / "mine.py"
    file.write_text(
        "from runpod_worker import Worker\nworker = Worker()\n"
        "@worker.handler\ndef handler(job):\n    return job['input'] + 1\nworker.start()\n"
    )
    worker = subprocess.Popen([sys.executable, str(file)], env=os.environ | {"RUNPOD_WORKER_URL": workers.url})
    workers.processes.append(worker)

    assert workers.post("runsync", {"input": 41})["output"] == 42

    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0


def test_a_no_op_is_held_for_less_than_ten_milliseconds(workers: Fleet) -> None:
    """taken -> done by the service's own clock, one caller; the peer manages one job a second."""
    workers.worker("@worker.handler\ndef handler(job):\n    return 1\n")
    workers.post("runsync", {"input": {}})

    held = [workers.post("runsync", {"input": {}})["executionTime"] for _ in range(100)]

    assert statistics.median(held) < 10
