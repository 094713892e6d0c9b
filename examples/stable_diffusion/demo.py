"""Draw prompts on this machine, with a job service, a worker and Stable Diffusion.

    python demo.py                                        # a dozen prompts that the small model knows
    python demo.py "a green star on a white background"   # your own

The pictures end up on one sheet, demo-output/contact-sheet.png.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

import runpod_worker

View = dict[str, Any]  # the JSON that the service returns for a job

HERE = Path(__file__).parent
ENDPOINT = "stable-diffusion"
FINAL = ("COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT")
START_S = 300.0  # importing torch from a cold disk is slow
PROMPTS = (
    "a red circle on a white background",
    "a blue star on a yellow background",
    "a yellow triangle on a blue background",
    "a green square on a black background",
    "a purple star on a gray background",
    "an orange circle on a blue background",
    "a pink triangle on a black background",
    "a white star on a blue background",
    "a red square on a yellow background",
    "a green triangle on a white background",
    "a purple circle on a yellow background",
    "a yellow star on a black background",
)


def main() -> int:
    options = argparse.ArgumentParser(description="Draw prompts with a job service and a worker on this machine.")
    options.add_argument("prompts", nargs="*", default=PROMPTS)
    options.add_argument("--output", type=Path, default=Path("demo-output"))
    args = options.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # a normal exit, which ends the processes below

    args.output.mkdir(parents=True, exist_ok=True)
    with service_and_worker(args.output) as url:
        runpod_worker.endpoint_url_base = f"{url}/v2"
        endpoint = runpod_worker.Endpoint(ENDPOINT, api_key="")  # our own service, without keys
        views = [print_reply(endpoint, args.prompts[0]), *show_progress(endpoint, args.prompts[1:])]
        pictures = [(view["input"]["prompt"], download(view["output"][0]["image"])) for view in views]
    sheet = args.output / "contact-sheet.png"
    contact_sheet(pictures).save(sheet)
    print(f"\n{len(pictures)} pictures: {sheet}")
    return 0


def print_reply(endpoint: runpod_worker.Endpoint, prompt: str) -> View:
    """Send a prompt with /runsync, and print the reply."""
    request = {"input": {"prompt": prompt, "seed": 1}}
    print(f"\nPOST /v2/{ENDPOINT}/runsync  {json.dumps(request)}")
    view: View = endpoint.rp_client.post(f"{ENDPOINT}/runsync", request, timeout=START_S)
    if view["status"] not in FINAL:  # on a slow machine the service answers before the job has ended
        endpoint.job(view["id"]).output(timeout=None)
        view = endpoint.job(view["id"]).view()
    print(json.dumps(view, indent=2))
    return view


def show_progress(endpoint: runpod_worker.Endpoint, prompts: Sequence[str]) -> list[View]:
    """Queue all prompts with /run, and show the progress of each."""
    print()
    jobs = [endpoint.run({"prompt": prompt, "seed": number}) for number, prompt in enumerate(prompts, start=2)]
    return [watch(job, prompt) for job, prompt in zip(jobs, prompts, strict=True)]


def watch(job: runpod_worker.client.Job, prompt: str) -> View:
    """Show the steps of a job until it has ended, and return its view.

    Raises:
        JobError: the job ended without a picture.
    """
    while (view := job.view())["status"] not in FINAL:
        progress = view.get("output") or {"step": 0, "steps": 1}
        if sys.stdout.isatty():
            filled = 20 * progress["step"] // progress["steps"]
            print(f"\r  {'█' * filled:·<20}  {prompt}", end="", flush=True)
        time.sleep(0.03)
    job.output()
    print(f"\r  {'█' * 20}  {prompt}  {view['executionTime']} ms")
    return view


def download(url: str) -> Image.Image:
    """The picture at the URL of an output."""
    with urllib.request.urlopen(url, timeout=30) as reply:
        return Image.open(io.BytesIO(reply.read()))


# ---------------------------------------------------------------- the processes


@contextlib.contextmanager
def service_and_worker(folder: Path) -> Iterator[str]:
    """Run a job service and a worker; yield the service's URL when the worker takes jobs."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as data, contextlib.ExitStack() as running:
        print(f"starting the job service on {url}")
        service = running.enter_context(process(folder / "service.log", "serve", "--port", str(port), "--data", data))
        worker_url = f"{url}/v2/{ENDPOINT}"
        wait_for(service, f"{worker_url}/health", lambda health: True)
        print("starting the worker, which loads the model")
        worker = running.enter_context(
            process(folder / "worker.log", "run", str(HERE / "handler.py"), "--url", worker_url)
        )
        wait_for(worker, f"{worker_url}/health", lambda health: health["workers"]["idle"] > 0)
        yield url


@contextlib.contextmanager
def process(log: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run `runpod-worker ARGUMENTS` until the block ends; after an exception print the end of its log."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RUNPOD_")}
    environment.setdefault("OMP_NUM_THREADS", "1")  # a small model is slower on several threads
    with log.open("wb") as out:
        child = subprocess.Popen(
            [sys.executable, "-m", "runpod_worker", *arguments],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches only this program, which then ends the others
        )
    try:
        yield child
    except Exception:
        print(f"\nThe end of {log}:\n" + "".join(log.read_text(errors="replace").splitlines(keepends=True)[-20:]))
        raise
    finally:
        child.terminate()
        try:
            child.wait(timeout=20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def wait_for(child: subprocess.Popen[bytes], url: str, good: Callable[[Any], bool]) -> None:
    """Wait until `good` accepts the JSON at `url`.

    Raises:
        RuntimeError: the process ended, or START_S seconds passed.
    """
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and child.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as reply:
            if good(json.load(reply)):
                return
        time.sleep(0.1)
    raise RuntimeError("the process ended" if child.poll() is not None else f"not ready after {START_S:g} s")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# ---------------------------------------------------------------- the pictures


def contact_sheet(pictures: list[tuple[str, Image.Image]], columns: int = 4, side: int = 192) -> Image.Image:
    """All pictures in rows, each with its prompt below."""
    gap, line = 16, 18
    font = ImageFont.load_default(size=13)
    width, height = side + gap, side + gap + 2 * line
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * width + gap, rows * height + gap), "#f4f4f4")
    pen = ImageDraw.Draw(sheet)
    for number, (prompt, picture) in enumerate(pictures):
        left, top = gap + number % columns * width, gap + number // columns * height
        sheet.paste(picture.resize((side, side), Image.Resampling.BICUBIC), (left, top))
        pen.text((left, top + side + 4), wrapped(prompt, font, side), fill="#222222", font=font)
    return sheet


def wrapped(text: str, font: Any, width: int) -> str:
    """The text in lines no longer than `width` pixels, two at most."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return "\n".join(lines[:2])


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
