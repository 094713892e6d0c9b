"""All checks of a service and all checks of a worker."""

from __future__ import annotations

from . import service_for_callers, service_for_workers, service_suite, worker_lifecycle, worker_results, worker_suite

MODULES = (service_for_callers, service_for_workers, worker_results, worker_lifecycle)
"""Importing these modules adds their checks to the lists."""

SERVICE = service_suite.check.all
WORKER = worker_suite.check.all
