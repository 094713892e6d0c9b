"""The same handlers under RunPod's SDK and under ours: every difference in their requests is listed."""

from pathlib import Path

import pytest

from tools.differential.page import PAGE, Comparison, page, surprises
from tools.differential.running import REFERENCE, compare

LINE = "POST /job-done/pod-1/case?isStream=false"


@pytest.mark.slow
async def test_both_sdks_send_the_same_requests_except_for_the_listed_differences(reference: Path) -> None:
    comparison = await compare(reference)

    assert surprises(comparison) == []
    assert PAGE.read_text(encoding="utf-8") == page(comparison, REFERENCE.partition("==")[2]), "run: make compat-table"


def test_a_new_difference_and_a_vanished_difference_are_both_reported() -> None:
    comparison = Comparison(reference={"new": [LINE], "nan": [LINE]}, ours={"new": ["nothing"], "nan": [LINE]})

    lines = surprises(comparison)

    assert lines[0].startswith("new differs, and is not listed:")
    assert "nan is listed as different, and is the same" in lines
