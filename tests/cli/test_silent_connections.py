"""A service with few files answers although many connections say nothing."""

import contextlib
import re
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path


def test_a_service_of_64_files_answers_beside_80_silent_connections(tmp_path: Path) -> None:
    serve = f"exec {sys.executable} -u -m runpod_worker serve --port 0 --data {tmp_path}"
    process = subprocess.Popen(["sh", "-c", f"ulimit -n 64; {serve}"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        match = re.search(r"http://([^:]+):(\d+)", process.stdout.readline())
        assert match
        with contextlib.ExitStack() as stack:
            for _ in range(80):
                stack.enter_context(socket.create_connection((match[1], int(match[2])), timeout=20))
            for _ in range(3):
                with urllib.request.urlopen(f"{match[0]}/v2/ep/health", timeout=8) as reply:
                    assert reply.status == 200
    finally:
        process.terminate()
        process.wait(20)
        if process.stdout:
            process.stdout.close()
