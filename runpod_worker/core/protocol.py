"""Constants of the wire that several rooms need: header names, texts and limits.

Limits are the platform's (protocol A.10); header names of our own are explained in docs/extensions.md.
"""

from __future__ import annotations

SDK_VERSION = "1.12.0"
"""The version of RunPod's SDK that this package follows. Heartbeats send it; handlers written for the SDK see it."""

MIB = 2**20
MAX_RUN_BYTES = 10 * MIB
MAX_RUNSYNC_BYTES = 20 * MIB
MAX_RESULT_BYTES = 20 * MIB

EXECUTION_TIMEOUT_ERROR = "executionTimeout exceeded"
"""The error of a job that ran longer than its executionTimeout, in the platform's words (protocol A.5)."""

X_EXTENSIONS = "X-Worker-Extensions"
X_ATTEMPT = "X-Attempt"
X_STALE = "X-Stale"
X_TAKE = "X-Take"
X_TAKE_ID = "X-Take-Id"
X_FILES_URL = "X-Files-Url"
X_FILES_MAX_BYTES = "X-Files-Max-Bytes"

ATTEMPT_FIELDS = ("attempt", "leaseMs", "timeoutMs")
"""What the extension `attempt` adds to a job. The agent reads them, handlers do not see them."""

EXTENSIONS = frozenset({"attempt", "chunks", "files", "leases", "return", "stop", "take", "timings"})
"""The extensions that this release knows. A worker uses those that the service names, and names them back."""
