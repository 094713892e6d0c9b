"""The version of RunPod's SDK that this package follows, at the path of the SDK."""

from __future__ import annotations

from runpod_worker.core.protocol import SDK_VERSION as __version__  # noqa: N811 - the SDK's name

__all__ = ["__version__", "get_version"]


def get_version() -> str:
    """Return the version of the SDK."""
    return __version__
