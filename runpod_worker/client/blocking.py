"""`Endpoint` and `Job`, for programs without an event loop. Threads may share them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TypeVar

from .access import access, require_id
from .calls import Calls, View
from .connections import Connections
from .exchange import Flow, Json, NoReply, NotSent, Pause, Reply, Step
from .handles import JobHandle

T = TypeVar("T")


class RunPodClient:
    """The connections to a job service, with one key and one base URL."""

    def __init__(self, api_key: str | None = None) -> None:
        """Use `api_key`, or `runpod_worker.api_key`.

        Raises:
            SettingsError: the key is missing for a service on another machine.
        """
        service = access(api_key)
        self.api_key = service.key
        self.endpoint_url_base = service.base_url
        self.headers = service.headers
        self._connections = Connections(service.base_url, service.headers, service.proxy)
        self.calls = Calls()

    def get(self, endpoint: str, timeout: float = 10) -> Json:
        """GET a path below the base URL and return the JSON of the reply."""
        return self.perform(self.calls.call("GET", endpoint, None, timeout, repeatable=True))

    def post(self, endpoint: str, data: Json, timeout: float = 10) -> Json:
        """POST JSON to a path below the base URL and return the JSON of the reply."""
        return self.perform(self.calls.call("POST", endpoint, data, timeout))

    def perform(self, flow: Flow[T]) -> T:
        """Perform the steps of a call and return its result."""
        result: Reply | Exception | None = None
        while True:
            try:
                step = flow.throw(result) if isinstance(result, Exception) else flow.send(result)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            result = self._perform_step(step)

    def _perform_step(self, step: Step) -> Reply | Exception | None:
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return None
        try:
            return self._connections.exchange(step)
        except (NotSent, NoReply) as error:  # the logic decides what follows
            return error

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._connections.close()


class Job(JobHandle):
    """A job of an endpoint."""

    def __init__(self, endpoint_id: str, job_id: str, client: RunPodClient) -> None:
        super().__init__(endpoint_id, job_id, client.calls)
        self.rp_client = client

    def status(self) -> str:
        """Return the job's status: IN_QUEUE, IN_PROGRESS, COMPLETED, FAILED, CANCELLED or TIMED_OUT."""
        return self.rp_client.perform(self._status())

    def view(self) -> View:
        """Return the view of the job: status, output or error, delayTime, executionTime, workerId."""
        return self.rp_client.perform(self._view())

    def output(self, timeout: float | None = 0) -> Json:
        """Return the output, after waiting up to `timeout` seconds for the end of the job; None waits without limit.

        With 0 it does not wait, and returns the latest progress of a running job, or None.

        Raises:
            JobFailed, JobCancelled, JobTimedOut: the job did not complete; `.job` is its view.
            WaitTimedOut: (a TimeoutError) the job has not ended in time; it continues.
        """
        return self.rp_client.perform(self._output(timeout))

    def stream(self) -> Iterator[Json]:
        """Yield the chunks of the job as they arrive, until it has completed.

        Raises:
            JobFailed, JobCancelled, JobTimedOut: after the last chunk, if the job did not complete.
        """
        early = 0
        while True:
            chunks, early = self.rp_client.perform(self._chunks(early))
            if not chunks:
                return
            yield from chunks

    def cancel(self, timeout: float = 10) -> View:
        """Cancel the job, and return the service's reply."""
        return self.rp_client.perform(self._cancel(timeout))

    def retry(self, timeout: float = 3) -> View:
        """Run a job again that failed or timed out, and return the service's reply."""
        return self.rp_client.perform(self._retry(timeout))


class Endpoint:
    """An endpoint, to which jobs are sent.

    Example:
        >>> endpoint = runpod_worker.Endpoint("ENDPOINT_ID")
        >>> endpoint.run_sync({"prompt": "a red circle"})
    """

    def __init__(self, endpoint_id: str, api_key: str | None = None) -> None:
        self.endpoint_id = require_id(endpoint_id, "endpoint_id")
        self.rp_client = RunPodClient(api_key)

    def run(self, request_input: Json) -> Job:
        """Submit a job and return it without waiting.

        A mapping with `input`, and no keys but `webhook`, `webhookV2`, `policy` and `s3Config` beside it, is a whole
        request. Any other value is the input of the job.
        """
        job_id = self.rp_client.perform(self.rp_client.calls.submit(self.endpoint_id, request_input))
        return self.job(job_id)

    def run_sync(self, request_input: Json, timeout: float | None = 86400) -> Json:
        """Submit a job as `run` does, wait up to `timeout` seconds for its end and return its output.

        None waits without limit.

        Raises:
            JobFailed, JobCancelled, JobTimedOut: the job did not complete; `.job` is its view.
            WaitTimedOut: (a TimeoutError) the job has not ended in time; it continues, and `.job["id"]` is its id.
        """
        return self.rp_client.perform(self.rp_client.calls.run_sync(self.endpoint_id, request_input, timeout))

    def job(self, job_id: str) -> Job:
        """Return a handle of the job with this id, without a request."""
        return Job(self.endpoint_id, job_id, self.rp_client)

    def health(self, timeout: float = 3) -> View:
        """Return the numbers of jobs and workers: `{"jobs": {...}, "workers": {...}}`."""
        return self.rp_client.perform(self.rp_client.calls.health(self.endpoint_id, timeout))

    def purge_queue(self, timeout: float = 3) -> View:
        """Cancel the jobs that are IN_QUEUE; the reply has their number."""
        return self.rp_client.perform(self.rp_client.calls.purge_queue(self.endpoint_id, timeout))
