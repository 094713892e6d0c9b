"""Named checks, from outside, whether a job service or a worker keeps the protocol's promises.

check                                     a check, its result, the `require` functions
service_for_callers, service_for_workers  the checks of a service
service_suite, service_runner             their common steps; runs them
service_under_test                        the callers and workers that the checks of a service play
worker_results, worker_lifecycle          the checks of a worker
worker_suite, worker_runner, handlers     their common steps; starts the worker; its handlers
scripted_service                          the service that a worker is checked against
suites                                    all checks"""
