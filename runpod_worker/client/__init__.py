"""The client: sends jobs to an endpoint and waits for them.

blocking, aio: the public classes, for threads and for asyncio. calls: their common logic, without I/O.
handles: what both kinds of job share. exchange: the steps between logic and I/O. sending: when a request is repeated.
submission: what `run` sends. replies: what a reply means. access: URL, key and proxy. connections: HTTP for `blocking`.
"""
