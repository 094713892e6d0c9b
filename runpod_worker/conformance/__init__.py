"""Is a job service, or a worker, what the protocol asks for? Named checks against any of either, from outside.

`service_*` files play callers and workers against a service; `worker_*` files play the service for a worker, which is
started as a process. A check is a function whose name says what holds; it raises `Unmet` when it does not.
"""
