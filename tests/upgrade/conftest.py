"""Copies of the samples of release 0.1; tests/data/0.1/README.md says what they hold."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SAMPLES = Path(__file__).parents[1] / "data/0.1"


@dataclass
class Samples:
    """A data folder and a spool of release 0.1 that the test may change, and what 0.1 says about the jobs in them."""

    data: Path
    spool: Path
    views: dict[str, Any]

    def now(self) -> float:
        """A clock that stands where the service's stood when the samples were made."""
        return float(self.views["at"])

    @property
    def authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.views['key']}"}


@pytest.fixture
def samples(tmp_path: Path) -> Samples:
    data = shutil.copytree(SAMPLES / "service", tmp_path / "service")
    spool = shutil.copytree(SAMPLES / "spool", tmp_path / "spool")
    return Samples(data, spool, json.loads((SAMPLES / "views.json").read_text()))
