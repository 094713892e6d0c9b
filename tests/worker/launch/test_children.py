"""What a handler has started ends with its process, however that one ends: a server's port is free for the next."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and the adoption of orphans")

SERVER = """
import signal, socket, sys, time
from pathlib import Path
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("127.0.0.1", int(sys.argv[1])))
listener.listen()
if sys.argv[3] == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
Path(sys.argv[2]).touch()
time.sleep(600)
"""

HANDLER = """
import subprocess
from pathlib import Path
up = Path("{up}") / str(os.getpid())
{start}
deadline = time.monotonic() + 30
while not up.exists():
    assert time.monotonic() < deadline and (server is None or server.poll() is None), "the server did not start"
    time.sleep(0.01)
@worker.handler
def handler(job):
    time.sleep(job["input"])
    return os.getpid()
"""

OPTIONS = {"child": "", "own-session": ", start_new_session=True"}


def source(tmp_path: Path, port: int, kind: str, mood: str = "obedient") -> str:
    """A handler file that starts a server when it is imported, as worker-vllm does."""
    (tmp_path / "server.py").write_text(SERVER)
    command = f"[sys.executable, {str(tmp_path / 'server.py')!r}, '{port}', str(up), {mood!r}]"
    if kind == "daemon":  # its parent has left before the executor does
        start = f"server = None\nsubprocess.run(['sh', '-c', 'setsid \"$@\" &', 'sh', *{command}], check=True)"
    else:
        start = f"server = subprocess.Popen({command}{OPTIONS[kind]})"
    up = tmp_path / "up"
    up.mkdir()
    return HANDLER.format(up=up, start=start)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


async def until(condition: Callable[[], Any], what: str, seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)
    assert condition(), what


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def executors(tmp_path: Path) -> list[int]:
    return [int(path.name) for path in (tmp_path / "up").iterdir()]


KINDS = ["child", "own-session", "daemon"]


@pytest.mark.parametrize("mood", ["obedient", "stubborn"])
async def test_a_worker_that_drains_leaves_no_server(start_worker: Any, tmp_path: Path, mood: str) -> None:
    workers = {}
    for kind in KINDS:  # all drain at the same time, because each waits seconds for a stubborn server
        folder, port = tmp_path / kind, free_port()
        folder.mkdir()
        spool = {"RUNPOD_WORKER_SPOOL": str(folder / "spool")}
        workers[kind, port] = await start_worker(source(folder, port, kind, mood), **spool)
    await until(lambda: all(executors(tmp_path / kind) for kind in KINDS), "the servers are up")

    codes = await asyncio.gather(*(worker.terminate() for worker in workers.values()))

    assert codes == [0] * len(KINDS)
    for (kind, port), worker in workers.items():
        assert is_free(port), (kind, worker.log)


@pytest.mark.parametrize("kind", ["child", "own-session"])
async def test_a_users_process_that_drains_leaves_no_server(start_worker: Any, tmp_path: Path, kind: str) -> None:
    port = free_port()
    worker = await start_worker(source(tmp_path, port, kind), as_executor=True)
    await until(lambda: executors(tmp_path), "the server is up")
    await until(lambda: "executor.ready" in worker.log, "the worker is ready")

    assert await worker.terminate() == 0

    assert is_free(port), worker.log


@pytest.mark.parametrize("kind", KINDS)
async def test_the_next_executor_can_start_the_server_again(
    agreed: Any, start_worker: Any, tmp_path: Path, kind: str
) -> None:
    worker = await start_worker(source(tmp_path, free_port(), kind))
    await until(lambda: executors(tmp_path), "the server is up")
    [first] = executors(tmp_path)

    os.kill(first, signal.SIGKILL)
    await agreed.add({"id": "a", "input": 0})
    second = (await agreed.result("a"))["output"]

    assert second != first
    assert "was killed by SIGKILL" in worker.log
    assert await worker.terminate() == 0


@pytest.mark.parametrize("kind", ["child", "own-session"])
async def test_a_users_process_that_is_killed_leaves_no_server(
    agreed: Any, start_worker: Any, tmp_path: Path, kind: str
) -> None:
    port = free_port()
    worker = await start_worker(source(tmp_path, port, kind), as_executor=True)
    await agreed.add({"id": "a", "input": 0})
    await agreed.result("a")

    worker.signal(signal.SIGKILL)

    await until(lambda: is_free(port), "the port is free")


@pytest.mark.parametrize("as_executor", [False, True])
@pytest.mark.parametrize("kind", ["child", "own-session"])
async def test_an_agent_that_is_killed_leaves_no_process(
    agreed: Any, start_worker: Any, tmp_path: Path, kind: str, as_executor: bool
) -> None:
    port = free_port()
    worker = await start_worker(source(tmp_path, port, kind), as_executor=as_executor)
    await agreed.add({"id": "a", "input": 600})
    await until(lambda: "executor.ready" in worker.log, "the worker is ready")
    [executor] = executors(tmp_path)
    [agent] = children(executor) if as_executor else [worker.pid]

    os.kill(agent, signal.SIGKILL)

    await until(lambda: is_free(port) and has_ended(executor), "the executor has ended", seconds=2)


def children(pid: int) -> list[int]:
    """The children that are agents."""
    pids = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [child for child in pids if b"launch" in Path(f"/proc/{child}/cmdline").read_bytes()]


def has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.parametrize("as_executor", [False, True])
async def test_the_handlers_own_sigterm_handler_is_called_when_the_worker_drains(
    start_worker: Any, tmp_path: Path, as_executor: bool
) -> None:
    worker = await start_worker(
        f"""
        def on_sigterm(number, frame):
            open({str(tmp_path / "called")!r}, "a").write(f"{{number}}\\n")
            sys.exit(3)
        signal.signal(signal.SIGTERM, on_sigterm)
        @worker.handler
        def handler(job): ...
        """,
        as_executor=as_executor,
    )
    await until(lambda: "executor.ready" in worker.log, "the worker is ready")

    assert await worker.terminate() == 0

    assert (tmp_path / "called").read_text() == "15\n"


@pytest.mark.parametrize("as_executor", [False, True])
async def test_a_handler_that_terminates_its_process_drains_the_worker(
    agreed: Any, start_worker: Any, as_executor: bool
) -> None:
    worker = await start_worker(
        """
        @worker.handler
        def handler(job):
            os.kill(os.getpid(), signal.SIGTERM)
            return "finished"
        """,
        as_executor=as_executor,
    )
    await agreed.add({"id": "a", "input": 1})

    assert await worker.exit() == 0

    assert (await agreed.result("a"))["output"] == "finished"
