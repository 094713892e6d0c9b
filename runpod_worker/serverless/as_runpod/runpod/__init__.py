"""Replaces the package `runpod` while this folder's parent is on the path, which `--as-runpod` does."""

from runpod_worker.serverless.as_runpod import install

install()
