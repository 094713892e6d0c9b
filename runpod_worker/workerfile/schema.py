"""The JSON Schema of worker.yaml, for editors that complete and check YAML."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from runpod_worker.workerfile.model import WorkerFile


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of worker.yaml."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "worker.yaml"}
    body: dict[str, Any] = msgspec.json.schema(WorkerFile)
    keys = body["$defs"]["WorkerFile"]["properties"]
    # These are read as text whatever YAML takes them for; editors must not complain about `python: 3.12` or `DEBUG: 1`.
    keys["python"]["anyOf"][0]["type"] = ["string", "number"]
    keys["env"]["additionalProperties"]["type"] = ["string", "number", "boolean"]
    return head | body


def as_text() -> str:
    """The schema as it stands in docs/worker.schema.json."""
    return json.dumps(schema(), indent=2) + "\n"
