"""The same handlers under RunPod's SDK and under ours: every difference of their requests is on the list.

The requests of the SDK are recorded; `make compat` and CI check that the recording is still right.
"""

import os
from pathlib import Path

import pytest

from tools.compat_environments import REFERENCE_VERSION
from tools.differential.page import PAGE, RECORDED, Comparison, load_reference, page, surprises
from tools.differential.running import run_ours, run_reference

RUNS_THE_SDK = os.environ.get("COMPAT") == "all" or "CI" in os.environ

LINE = "POST /job-done/pod-1/case?isStream=false"


@pytest.mark.slow
async def test_our_requests_equal_the_recorded_ones_of_the_sdk_but_for_the_listed_differences() -> None:
    comparison = Comparison(reference=load_reference(), ours=await run_ours())

    assert surprises(comparison) == []
    assert PAGE.read_text(encoding="utf-8") == page(comparison, REFERENCE_VERSION), "run: make compat-table"


@pytest.mark.slow
@pytest.mark.skipif(not RUNS_THE_SDK, reason="make compat runs the SDK itself")
async def test_the_sdk_still_sends_the_recorded_requests(reference: Path) -> None:
    assert await run_reference(reference) == load_reference(), f"run: make compat-table, which writes {RECORDED.name}"


def test_a_new_difference_and_a_vanished_difference_are_both_reported() -> None:
    comparison = Comparison(reference={"new": [LINE], "nan": [LINE]}, ours={"new": ["nothing"], "nan": [LINE]})

    problems = surprises(comparison)

    assert problems[0].startswith("new differs, and is not listed:")
    assert "nan is listed as different, and is the same" in problems
