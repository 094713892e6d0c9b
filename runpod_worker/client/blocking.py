"""The blocking face: `Endpoint` and `Job`, for programs without an event loop. Safe to use from several threads."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TypeVar

from .access import access, checked_id
from .calls import Calls, View
from .connections import Connections
from .exchange import Flow, Json, NoReply, NotSent, Pause, Reply, Step
from .handles import JobHandle

T = TypeVar("T")


class RunPodClient:
    """The connection to the job service: one key, one base URL, connections kept open."""

    def __init__(self, api_key: str | None = None) -> None:
        """Take `api_key`, or else `runpod_worker.api_key`.

        Raises:
            SettingsError: there is no key, though the service is not on this machine.
        """
        reach = access(api_key)
        self.endpoint_url_base = reach.base_url
        self.headers = reach.headers
        self._connections = Connections(reach.base_url, reach.headers, reach.proxy)
        self.calls = Calls()

    def get(self, endpoint: str, timeout: float = 10) -> Json:
        """Return the JSON at a path below the base URL."""
        return self.perform(self.calls.call("GET", endpoint, None, timeout, repeatable=True))

    def post(self, endpoint: str, data: Json, timeout: float = 10) -> Json:
        """Post JSON to a path below the base URL and return the JSON of the reply."""
        return self.perform(self.calls.call("POST", endpoint, data, timeout))

    def perform(self, flow: Flow[T]) -> T:
        """Carry out the steps of one call and return its result."""
        result: Reply | Exception | None = None
        while True:
            try:
                step = flow.throw(result) if isinstance(result, Exception) else flow.send(result)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            result = self._carried_out(step)

    def _carried_out(self, step: Step) -> Reply | Exception | None:
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return None
        try:
            return self._connections.exchange(step)
        except (NotSent, NoReply) as error:  # for the logic to decide
            return error

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._connections.close()


class Job(JobHandle):
    """One job of an endpoint."""

    def __init__(self, endpoint_id: str, job_id: str, client: RunPodClient) -> None:
        super().__init__(endpoint_id, job_id, client.calls)
        self.rp_client = client

    def status(self) -> str:
        """Return the job's status: IN_QUEUE, IN_PROGRESS, COMPLETED, FAILED, CANCELLED or TIMED_OUT."""
        return self.rp_client.perform(self._status())

    def view(self) -> View:
        """Return the service's whole view of the job: status, output or error, delayTime, executionTime, workerId."""
        return self.rp_client.perform(self._view())

    def output(self, timeout: float | None = 0) -> Json:
        """Return the job's output, waiting up to `timeout` seconds for its end; None waits for as long as it takes.

        With 0 there is no wait: a job that still runs gives its latest progress, or None.

        Raises:
            JobFailed, JobCancelled, JobTimedOut: it ended without completing; `.job` is the service's view of it.
            WaitTimedOut: (a TimeoutError) it has not ended in time; it goes on.
        """
        return self.rp_client.perform(self._output(timeout))

    def stream(self) -> Iterator[Json]:
        """Yield what the handler yields, as it comes, until the job has completed.

        Raises:
            JobFailed, JobCancelled, JobTimedOut: after the last chunk, if the job ended without completing.
        """
        early = 0
        while True:
            chunks, early = self.rp_client.perform(self._chunks(early))
            if not chunks:
                return
            yield from chunks

    def cancel(self, timeout: float = 10) -> View:
        """Ask that the job be given up, and return the service's reply."""
        return self.rp_client.perform(self._cancel(timeout))

    def retry(self, timeout: float = 3) -> View:
        """Ask for one more run of a job that failed or timed out, and return the service's reply."""
        return self.rp_client.perform(self._retry(timeout))


class Endpoint:
    """A place to send jobs to.

    Example:
        >>> endpoint = runpod_worker.Endpoint("ENDPOINT_ID")
        >>> endpoint.run_sync({"prompt": "a red circle"})
    """

    def __init__(self, endpoint_id: str, api_key: str | None = None) -> None:
        self.endpoint_id = checked_id(endpoint_id, "endpoint_id")
        self.rp_client = RunPodClient(api_key)

    def run(self, request_input: Json) -> Job:
        """Send a job and return it without waiting.

        A mapping of `input` and at most `webhook`, `webhookV2`, `policy`, `s3Config` is a whole request; anything else
        is the job's input.
        """
        job_id = self.rp_client.perform(self.rp_client.calls.submit(self.endpoint_id, request_input))
        return self.job(job_id)

    def run_sync(self, request_input: Json, timeout: float | None = 86400) -> Json:
        """Send a job (as `run` does), wait up to `timeout` seconds for its end and return its output.

        None waits for as long as it takes.

        Raises:
            JobFailed, JobCancelled, JobTimedOut: it ended without completing; `.job` is the service's view of it.
            WaitTimedOut: (a TimeoutError) it has not ended in time; it goes on, and `.job["id"]` names it.
        """
        return self.rp_client.perform(self.rp_client.calls.run_sync(self.endpoint_id, request_input, timeout))

    def job(self, job_id: str) -> Job:
        """Return the job with this id; asks nobody."""
        return Job(self.endpoint_id, job_id, self.rp_client)

    def health(self, timeout: float = 3) -> View:
        """Return the numbers of jobs and workers: `{"jobs": {...}, "workers": {...}}`."""
        return self.rp_client.perform(self.rp_client.calls.health(self.endpoint_id, timeout))

    def purge_queue(self, timeout: float = 3) -> View:
        """Drop the jobs that are still queued; the reply says how many."""
        return self.rp_client.perform(self.rp_client.calls.purge_queue(self.endpoint_id, timeout))
