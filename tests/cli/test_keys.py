"""API keys made on the command line, used by a running service."""

import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest


def cli(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "runpod_worker", *args], capture_output=True, text=True, timeout=60)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[str]:
    command = [sys.executable, "-u", "-m", "runpod_worker", "serve", "--port", "0", "--data", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    match = re.search(r"http://\S+:\d+", process.stdout.readline())
    assert match
    yield match.group()
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    process.stdout.close()


def status(url: str, key: str | None = None) -> int:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"} if key else {})
    try:
        with urllib.request.urlopen(request, timeout=20) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def eventually(url: str, key: str | None, expected: int) -> None:
    """A change of the keys reaches the service within a second."""
    deadline = time.monotonic() + 10
    while status(url, key) != expected:
        assert time.monotonic() < deadline, f"{url} answers {status(url, key)}, not {expected}"
        time.sleep(0.05)


def test_a_running_service_takes_a_new_key_and_a_revoked_one_within_a_second(tmp_path: Path, service: str) -> None:
    health = f"{service}/v2/mine/health"
    assert status(health) == 200  # open to this machine while there are no keys

    made = cli("keys", "create", "me", "--endpoint", "mine", "--data", str(tmp_path))

    key = made.stdout.strip()
    assert key.startswith("rpw_")
    eventually(health, None, 401)
    assert status(health, key) == 200
    assert status(f"{service}/v2/other/health", key) == 404

    second = cli("keys", "create", "you", "--endpoint", "yours", "--data", str(tmp_path)).stdout.strip()
    assert status(health, second) == 401
    assert cli("keys", "revoke", key, "--data", str(tmp_path)).returncode == 0
    eventually(health, key, 401)


def test_a_key_is_never_kept_or_listed(tmp_path: Path) -> None:
    key = cli("keys", "create", "me", "-e", "mine", "--label", "laptop", "--data", str(tmp_path)).stdout.strip()

    listed = cli("keys", "list", "--data", str(tmp_path)).stdout

    assert "me: endpoints mine" in listed
    assert "laptop" in listed
    assert key not in listed
    assert all(key.encode() not in path.read_bytes() for path in tmp_path.iterdir())


def test_an_endpoint_has_one_account(tmp_path: Path) -> None:
    cli("keys", "create", "me", "-e", "mine", "--data", str(tmp_path))

    refused = cli("keys", "create", "you", "-e", "mine", "--data", str(tmp_path))

    assert refused.returncode == 2
    assert refused.stderr.strip() == "error: endpoint: 'mine' belongs to an account already"


def test_without_a_key_the_service_stays_on_this_machine(tmp_path: Path) -> None:
    refused = cli("serve", "--host", "0.0.0.0", "--port", "0", "--data", str(tmp_path))

    assert refused.returncode == 2
    assert "expected a loopback address" in refused.stderr
    assert "Traceback" not in refused.stderr
