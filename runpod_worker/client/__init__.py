"""The client: sends jobs to an endpoint and waits for them.

blocking, aio    the public classes, for threads and for asyncio
calls, handles   their common logic without I/O; the common part of both kinds of job
exchange         the steps between logic and I/O
sending          when a request is repeated
submission       the request that `run` sends
replies          what a reply means
access           URL, key and proxy
connections      HTTP for `blocking`"""
