"""kill -9 of worker, executor and service in the middle of jobs: every accepted job ends, once."""

import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

Fleet = Any

COUNTED = """
@worker.handler
def handler(job):
    with open(job["input"]["ledger"], "a") as ledger:  # one write(2) of a short line: never torn
        ledger.write(f"{os.getpid()} {job['id']}\\n")
    time.sleep(job["input"].get("s", 0.02))
    open(job["input"]["ledger"] + ".ended", "w").close()
    return job["input"]["n"]
"""


def ledger(path: Path) -> list[tuple[int, str]]:
    if not path.exists():
        return []
    return [(int(pid), job) for pid, _, job in (line.partition(" ") for line in path.read_text().splitlines())]


def submit(fleet: Fleet, path: Path, count: int, **more: object) -> list[str]:
    return [fleet.run({"ledger": str(path), "n": n, **more}) for n in range(count)]


def check_all_ended(fleet: Fleet, jobs: list[str]) -> list[dict[str, Any]]:
    views = [fleet.ended(job) for job in jobs]
    assert [view["status"] for view in views] == ["COMPLETED"] * len(jobs)
    assert [view["output"] for view in views] == list(range(len(jobs)))
    return views


def test_a_killed_service_forgets_nothing_and_runs_nothing_twice(fleet: Fleet, tmp_path: Path) -> None:
    book = tmp_path / "ledger"
    service = fleet.serve()
    fleet.worker(COUNTED)
    jobs = submit(fleet, book, 60)
    for seen in (10, 30):
        fleet.until(lambda seen=seen: len(ledger(book)) > seen, "jobs run")
        service.kill()
        service.wait()
        service = fleet.serve()

    check_all_ended(fleet, jobs)

    assert Counter(job for _, job in ledger(book)) == Counter(jobs)


def test_a_killed_executor_fails_the_job_it_ran_and_no_other(fleet: Fleet, tmp_path: Path) -> None:
    book = tmp_path / "ledger"
    fleet.serve()
    fleet.worker(COUNTED)
    jobs = submit(fleet, book, 1, s=60) + submit(fleet, book, 20)
    [(executor, victim)] = fleet.until(lambda: ledger(book), "the first job runs")

    os.kill(executor, signal.SIGKILL)

    dead = fleet.ended(victim)
    assert dead["status"] == "FAILED"
    assert "SIGKILL" in dead["error"]
    others = [fleet.ended(job) for job in jobs if job != victim]
    assert {view["status"] for view in others} == {"COMPLETED"}


def test_jobs_of_a_killed_worker_are_run_by_another(fleet: Fleet, tmp_path: Path) -> None:
    book = tmp_path / "ledger"
    fleet.serve("--lease", "2")
    worker = fleet.worker(COUNTED)
    jobs = submit(fleet, book, 1, s=3600)
    fleet.until(lambda: ledger(book), "the job runs")
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    fleet.worker(COUNTED.replace('job["input"].get("s", 0.02)', "0"))

    [view] = check_all_ended(fleet, jobs)  # after the lease of the silent worker is over

    assert view["retries"] == 1
    assert len(ledger(book)) == 2


def test_results_finished_while_the_service_was_away_arrive_once(fleet: Fleet, tmp_path: Path) -> None:
    book = tmp_path / "ledger"
    service = fleet.serve()
    worker = fleet.worker(COUNTED)
    jobs = submit(fleet, book, 1, s=0.5)
    fleet.until(lambda: ledger(book), "the job runs")
    service.kill()
    service.wait()
    fleet.until(Path(f"{book}.ended").exists, "the job ends in the outage")

    fleet.serve()

    check_all_ended(fleet, jobs)
    assert len(ledger(book)) == 1
    assert worker.poll() is None


def test_a_result_that_could_not_be_delivered_is_sent_by_the_next_start(fleet: Fleet, tmp_path: Path) -> None:
    book, spool = tmp_path / "ledger", {"RUNPOD_WORKER_SPOOL": str(tmp_path / "spool"), "RUNPOD_POD_ID": "same"}
    service = fleet.serve()
    worker = fleet.worker(COUNTED, "--grace", "1", env=spool)
    jobs = submit(fleet, book, 1, s=0.3)
    fleet.until(lambda: ledger(book), "the job runs")
    service.kill()
    service.wait()
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0

    fleet.serve()
    fleet.worker(COUNTED, env=spool)

    check_all_ended(fleet, jobs)
    assert len(ledger(book)) == 1


def test_a_stream_goes_on_where_it_was_when_its_service_is_killed(fleet: Fleet, tmp_path: Path) -> None:
    service = fleet.serve()
    fleet.worker(
        """
        import asyncio
        @worker.handler(aggregate=True)
        async def handler(job):
            for n in range(1000):
                yield n
                with open(job["input"], "a") as ledger:
                    ledger.write(f"{n}\\n")
                await asyncio.sleep(0.004)
        """
    )
    book = tmp_path / "yielded"
    job = str(fleet.post("run", {"input": str(book)})["id"])

    for seen in (100, 400):
        fleet.until(
            lambda seen=seen: book.exists() and len(book.read_text().splitlines()) >= seen, "chunks are yielded"
        )
        service.kill()
        service.wait()
        service = fleet.serve()

    view = fleet.ended(job)
    assert (view["status"], view["output"]) == ("COMPLETED", list(range(1000)))
    assert "retries" not in view
    assert len(book.read_text().splitlines()) == 1000
    chunks: list[Any] = []
    while new := fleet.get(f"stream/{job}")["stream"]:
        chunks += [chunk["output"] for chunk in new]
    assert chunks == list(range(1000))
