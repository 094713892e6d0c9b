"""Tools for tests of workers: `run_once`, the real job service in this process, a manual clock, test signals.

service  the job service without a socket, and a worker's link to it
tools    a manual clock, test signals, and what every class with `start` and `close` promises
"""

from runpod_worker.testing.service import InProcessLink, InProcessService, InProcessTransport, ServiceReply
from runpod_worker.testing.tools import ManualClock, check_start_close, listening
from runpod_worker.worker.launch.once import OnceResult, run_once

__all__ = [
    "InProcessLink",
    "InProcessService",
    "InProcessTransport",
    "ManualClock",
    "OnceResult",
    "ServiceReply",
    "check_start_close",
    "listening",
    "run_once",
]
