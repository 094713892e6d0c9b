"""The path of a cached model from the Hugging Face hub."""

from __future__ import annotations

from runpod_worker.log import log


def resolve_model_cache_path_from_hugginface_repository(
    huggingface_repository: str,
    /,
    path_template: str = "/runpod/cache/{model}/{revision}",
) -> str | None:
    """The path for `org/name` or `org/name:revision`, by default revision "main"; None without a name.

    This is the path of RunPod's SDK. The platform now keeps models in /runpod-volume/huggingface-cache/hub, which
    Hugging Face's own libraries find by HF_HOME.
    """
    model, colon, revision = huggingface_repository.rpartition(":")
    if not colon:
        model, revision = huggingface_repository, "main"
    if not model:
        log.warning("model_cache.unresolved", extra={"repository": huggingface_repository})
        return None
    return path_template.format(model=model, revision=revision)
