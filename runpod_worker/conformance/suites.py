"""All checks of a service and all checks of a worker."""

from __future__ import annotations

from . import service_checks, service_tools, service_workers, worker_life, worker_results, worker_tools

MODULES = (service_checks, service_workers, worker_results, worker_life)
"""Their checks are in the lists as soon as they are imported."""

SERVICE = service_tools.check.all
WORKER = worker_tools.check.all
