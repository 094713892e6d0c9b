"""For every test: a clean environment, so that no setting of the machine leaks in."""

import os

import pytest


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    for name in list(os.environ):
        if name.startswith(("RUNPOD_", "BUCKET_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("RUNPOD_WORKER_SPOOL", str(tmp_path_factory.mktemp("spool")))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
