"""Stands for the package `runpod` where this folder's parent is on the path: `--as-runpod` puts it there."""

from runpod_worker.serverless.as_runpod import install

install()
