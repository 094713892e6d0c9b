"""Large inputs and outputs pass through; they do not stay."""

from pathlib import Path
from typing import Any

MIB = 2**20
PAGE = 4096
FILLER = "x" * (8 * MIB)

SIZES = """
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

@worker.handler
def handler(job):
    if "size" in job["input"]:
        return {"resident": resident(), "filler": "x" * job["input"]["size"]}
    return {"resident": resident(), "length": len(job["input"]["filler"])}
"""


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE


async def run(service: Any, prefix: str, count: int, job_input: dict[str, Any]) -> int:
    """Run `count` jobs and return the executor's memory in the last of them, in pages."""
    for n in range(count):
        await service.add({"id": f"{prefix}{n}", "input": job_input, "attempt": 1})
        resident_pages = (await service.result(f"{prefix}{n}"))["output"]["resident"]
        service.requests.clear()
    return int(resident_pages)


async def test_memory_stays_flat_over_large_inputs(agreed: Any, start_worker: Any) -> None:
    worker = await start_worker(SIZES)
    executor = await run(agreed, "warm", 10, {"filler": FILLER})
    agent = resident(worker.pid)

    later = await run(agreed, "job", 40, {"filler": FILLER})

    assert later - executor < 48 * MIB
    assert resident(worker.pid) - agent < 48 * MIB
    assert later < 256 * MIB
    assert resident(worker.pid) < 256 * MIB


async def test_memory_stays_flat_over_large_outputs(agreed: Any, start_worker: Any) -> None:
    worker = await start_worker(SIZES)
    executor = await run(agreed, "warm", 30, {"size": MIB})
    agent = resident(worker.pid)

    later = await run(agreed, "job", 200, {"size": MIB})

    assert later - executor < 32 * MIB
    assert resident(worker.pid) - agent < 32 * MIB


async def test_a_result_of_twenty_megabytes_leaves_and_the_agent_keeps_no_copies(
    agreed: Any, start_worker: Any
) -> None:
    worker = await start_worker(SIZES)
    size = 20 * MIB - 200
    await run(agreed, "warm", 3, {"size": size})
    agent = resident(worker.pid)

    await run(agreed, "job", 12, {"size": size})

    assert resident(worker.pid) - agent < 48 * MIB
    assert resident(worker.pid) < 320 * MIB
