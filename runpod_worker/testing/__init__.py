"""Tools for tests of workers: `run_once`, the real job service in this process, a manual clock, test signals.

service      the job service without a socket
link         a worker's link to it
clock        `ManualClock`, for the service and for a whole event loop
signals      wait for a moment that the code under test reports
start_close  what every class with `start` and `close` promises
"""

from runpod_worker.testing.clock import ManualClock
from runpod_worker.testing.link import InProcessLink, InProcessTransport
from runpod_worker.testing.service import InProcessService, ServiceReply
from runpod_worker.testing.signals import listening
from runpod_worker.testing.start_close import check_start_close
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
