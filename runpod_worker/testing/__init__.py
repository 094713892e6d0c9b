"""Tools for tests of workers: the real job service in this process, a clock that stands, exact moments.

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

__all__ = [
    "InProcessLink",
    "InProcessService",
    "InProcessTransport",
    "ManualClock",
    "ServiceReply",
    "check_start_close",
    "listening",
]
