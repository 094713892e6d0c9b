"""Records every call into the package, in a process whose PYTHONPATH begins with this folder.

Python imports `sitecustomize` at start-up. The recording is on while TRACE_DIR/start exists; when TRACE_DIR/stop
appears, the process writes TRACE_DIR/PID.json and stops.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path
from types import FrameType

POLL_S = 0.005
PACKAGE = f"{os.sep}runpod_worker{os.sep}"
TRACE_DIR = os.environ.get("TRACE_DIR")


class Recorder:
    """Counts a call once: a coroutine that resumes is not called again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.is_on = False
        self.calls: list[tuple[int, str, str]] = []
        self.frames: set[FrameType] = set()

    def profile(self, frame: FrameType, event: str, _: object) -> None:
        """A profile function: Python calls it at each call and return."""
        if not self.is_on or event != "call":
            return
        code = frame.f_code
        _, inside, path = code.co_filename.rpartition(PACKAGE)
        if inside and frame not in self.frames and not code.co_name.startswith("<"):
            self.frames.add(frame)
            self.calls.append((time.monotonic_ns(), path, code.co_qualname))

    def watch(self) -> None:
        """Wait for the start and the stop of the recording."""
        self._until("start")
        self.is_on = True
        self._until("stop")
        self.is_on = False
        temporary = self.folder / f"{os.getpid()}.tmp"
        temporary.write_text(json.dumps({"argv": sys.orig_argv, "calls": self.calls}))
        temporary.rename(temporary.with_suffix(".json"))

    def _until(self, name: str) -> None:
        while not (self.folder / name).exists():
            time.sleep(POLL_S)


if TRACE_DIR:
    recorder = Recorder(Path(TRACE_DIR))
    threading.Thread(target=recorder.watch, name="trace", daemon=True).start()
    threading.setprofile(recorder.profile)
    sys.setprofile(recorder.profile)
