"""Conformance: named checks, from outside, of any job service or worker against the protocol.

check: a check, its result, and the `require` functions. suites: all checks.
service_for_callers, service_for_workers: the checks of a service, on service_suite's list.
service_under_test: the callers and workers that these checks play. service_runner: runs them.
worker_results, worker_lifecycle: the checks of a worker, on worker_suite's list.
scripted_service: the service that a worker is checked against. worker_runner: starts the worker and runs the checks.
handlers: the conformance handlers, for this package and for RunPod's SDK.
"""
