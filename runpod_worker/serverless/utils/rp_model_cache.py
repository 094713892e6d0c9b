"""Where a model of Hugging Face's hub would be kept."""

from __future__ import annotations

from runpod_worker.log import log


def resolve_model_cache_path_from_hugginface_repository(
    huggingface_repository: str,
    /,
    path_template: str = "/runpod/cache/{model}/{revision}",
) -> str | None:
    """The path for `org/name` or `org/name:revision` ("main" by default); None when there is no name in it.

    This is where RunPod's SDK says it is. Today's platform keeps models in
    /runpod-volume/huggingface-cache/hub, which Hugging Face's own libraries find by HF_HOME.
    """
    model, colon, revision = huggingface_repository.rpartition(":")
    if not colon:
        model, revision = huggingface_repository, "main"
    if not model:
        log.warning("model_cache.no_name", extra={"repository": huggingface_repository})
        return None
    return path_template.format(model=model, revision=revision)
