"""The same handlers under RunPod's SDK and under ours: every difference in what is said is on the list."""

from pathlib import Path

import pytest

from tools.differential.page import PAGE, Comparison, page, surprises
from tools.differential.running import REFERENCE, compare

LINE = "POST /job-done/pod-1/case?isStream=false"


@pytest.mark.slow
async def test_what_both_sdks_say_is_the_same_but_for_the_listed_differences(reference: Path) -> None:
    found = await compare(reference)

    assert surprises(found) == []
    assert PAGE.read_text(encoding="utf-8") == page(found, REFERENCE.partition("==")[2]), "run: make compat-table"


def test_a_new_difference_and_one_that_vanished_are_both_told() -> None:
    found = Comparison(reference={"new": [LINE], "nan": [LINE]}, ours={"new": ["nothing"], "nan": [LINE]})

    told = surprises(found)

    assert told[0].startswith("new differs, and is not listed:")
    assert "nan is listed as different, and is the same" in told
