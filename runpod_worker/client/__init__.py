"""The client: sends jobs to an endpoint and waits for them. `blocking` and `aio` are faces of one logic, `calls`."""
