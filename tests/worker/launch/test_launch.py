"""The agent's process: what its start costs, and what it never imports."""

import subprocess
import sys


def run(source: str) -> str:
    done = subprocess.run([sys.executable, "-c", source], check=True, capture_output=True, text=True, timeout=120)
    return done.stdout


AGENT = "import runpod_worker.worker.launch.launch, runpod_worker.worker.agent.agent, runpod_worker.worker.link.http, "


NEVER = ["torch", "aiohttp", "sqlite3", "redis", "typer", "yaml", "runpod_worker.service", "runpod_worker.client"]


def test_the_agent_imports_neither_torch_nor_the_service_nor_what_it_does_not_need() -> None:
    loaded = run(AGENT + f"runpod_worker.worker.link.transport, sys\nprint([n for n in {NEVER} if n in sys.modules])")

    assert loaded.strip() == "[]"


def test_the_agent_fits_into_40_megabytes() -> None:
    kilobytes = run(
        AGENT
        + "runpod_worker.worker.link.transport, asyncio, pathlib\n"
        + "status = pathlib.Path('/proc/self/status').read_text()\n"
        + "print(status.partition('VmRSS:')[2].split()[0])"
    )

    assert int(kilobytes) < 40 * 1024


def test_the_agents_imports_take_less_than_350_ms_of_a_processor() -> None:
    seconds = run(AGENT + "runpod_worker.worker.link.transport, asyncio, time\nprint(time.process_time())")

    assert float(seconds) < 0.35
