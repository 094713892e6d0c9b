"""Helpers for handlers, with the names of RunPod's SDK. Each module is loaded at first use.

rp_download, rp_ssrf, rp_cleanup          files from addresses, safe addresses, removing files
rp_upload, rp_volume_cache                files to a bucket; folders on the volume
rp_model_cache, rp_cuda                   models on disk, GPUs
rp_validator, rp_debugger                 checks of an input, times of its steps"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .rp_download import download_files_from_urls
    from .rp_upload import upload_file_to_bucket, upload_in_memory_object
    from .rp_volume_cache import VolumeCache

__all__ = ["VolumeCache", "download_files_from_urls", "upload_file_to_bucket", "upload_in_memory_object"]

_MODULE_OF = {
    "VolumeCache": "rp_volume_cache",
    "download_files_from_urls": "rp_download",
    "upload_file_to_bucket": "rp_upload",
    "upload_in_memory_object": "rp_upload",
}
_MODULES = (
    "rp_cleanup",
    "rp_cuda",
    "rp_debugger",
    "rp_download",
    "rp_model_cache",
    "rp_ssrf",
    "rp_upload",
    "rp_validator",
    "rp_volume_cache",
)


def __getattr__(name: str) -> object:
    if name in _MODULE_OF:
        return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
