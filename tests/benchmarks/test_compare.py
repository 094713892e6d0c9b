"""The comparison with a baseline: its arithmetic, and one tiny run of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import compare, prefetch
from benchmarks.contenders import Checkout

ROOT = Path(__file__).parents[2]


def result(base: dict[str, float], now: dict[str, float]) -> compare.Result:
    return compare.Result(compare.Row("row"), base, now, {})


def test_a_figure_more_than_5_percent_worse_is_marked() -> None:
    same = {"jobs/s": 100.0, "p50 ms": 10.0, "memory, MiB": 50.0}

    assert result(same, {"jobs/s": 96.0, "p50 ms": 10.4, "memory, MiB": 52.0}).marked() == []
    assert result(same, {"jobs/s": 94.0, "p50 ms": 10.6, "memory, MiB": 53.0}).marked() == list(same)
    assert result(same, {"jobs/s": 200.0, "p50 ms": 1.0, "memory, MiB": 5.0}).marked() == []


def test_a_side_without_an_environment_runs_on_this_interpreter(tmp_path: Path) -> None:
    worker = Checkout("base", tmp_path).worker()

    assert worker.env == {"PYTHONPATH": str(tmp_path)}
    assert Path(worker.argv[0]).name.startswith("python")
    assert worker.argv[1] == str(ROOT / "benchmarks/handlers.py")


def test_the_sides_alternate_and_their_medians_are_compared(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[str] = []

    async def run_site(side: Checkout) -> dict[str, float]:
        runs.append(side.name)
        return {"p50 ms": {"base": [3.0, 1.0, 2.0], "now": [4.0, 9.0, 4.0]}[side.name][(len(runs) - 1) // 2]}

    monkeypatch.setattr(compare, "all_rows", lambda seconds, data_in: [compare.Row("/runsync", run_site=run_site)])

    status = compare.main(["--base", str(ROOT), "--rounds", "3"])

    assert runs == ["base", "now", "now", "base", "base", "now"]
    assert status == 1
    assert "| /runsync | p50 ms | 2.00 | 4.00 | 2.00 | - | **100 % worse** |" in capsys.readouterr().out


def test_a_worker_and_a_service_are_measured_on_both_sides(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["process start", "runsync"]

    compare.main(
        ["--base", str(ROOT), "--rounds", "1", "--seconds", "0.1", "--data-in", str(tmp_path), "--rows", *words]
    )

    table = capsys.readouterr().out
    for figure in ("start->first take ms", "64 callers, requests/s", "1 callers, p50 ms", "service's memory, MiB"):
        assert re.search(rf"\| {re.escape(figure)} \| [\d.,]+ \| [\d.,]+ \| [\d.]+ \|", table), table


def test_prefetch_shortens_no_wait_behind_long_jobs_in_a_short_simulation() -> None:
    jobs = list(prefetch.arrivals(7, 120))

    waits = prefetch.Simulation(iter(jobs), prefetch.PREFETCH_S).run()

    assert len(waits) == len(jobs)
    assert min(wait for _, wait in waits) >= 0
