"""The JSON Schema of worker.yaml, for editors that complete and check YAML."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from runpod_worker.workerfile.model import WorkerFile


def schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of worker.yaml."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "worker.yaml"}
    body: dict[str, Any] = msgspec.json.schema(WorkerFile)
    keys = body["$defs"]["WorkerFile"]["properties"]
    # We read these as text, so editors must accept `python: 3.12` and `DEBUG: 1`.
    keys["python"]["anyOf"][0]["type"] = ["string", "number"]
    keys["env"]["additionalProperties"]["type"] = ["string", "number", "boolean"]
    return head | body


def as_text() -> str:
    """Return the text of docs/worker.schema.json."""
    return json.dumps(schema(), indent=2) + "\n"
