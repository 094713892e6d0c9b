"""Every error this project raises on purpose.

RunpodWorkerError
├── BadRequest            400  the caller sent something wrong; the message names the field
│   └── TooLarge          400  a body over its limit (the platform answers 400, not 413)
├── Unauthorized          401  no key, or a key this endpoint does not accept
├── JobNotFound           404  no such job, or its retention is over
├── EndpointNotFound      404  no such endpoint
├── IllegalTransition     409  the job's status does not allow this
├── StaleAttempt          409  a worker speaks of an attempt it does not hold any more
├── BacklogFull           429  the endpoint takes no more jobs for now
├── StoreUnavailable      503  the store cannot be reached or cannot write
├── HandlerError               the user's handler or model raised
│   ├── CheckFailed            a fitness check says that this worker must not take jobs
│   └── InputError             the job's input is not what the handler asked for
├── DeclarationError           the worker is declared wrongly: no handler, two handlers, wrong arguments
├── OutputError                the handler's output cannot travel (not JSON, too large)
├── JobStopped                 (BaseException) raised inside a handler whose job was stopped
├── DownloadRefused            (ValueError) a URL leads to where it must not, or to more than is taken
├── DownloadFailed             (OSError) a file cannot be downloaded
├── LinkDown                   the job service cannot be reached, or answers garbage
│   └── LinkBusy               it asks to be left alone for a while (429)
├── LinkRefused                the job service refuses a request; to repeat it is of no use (4xx)
├── SpoolFull                  the spool has no room for one more outcome
├── ChannelClosed              the other process, agent or executor, is gone
├── ChannelGarbled             the other process sent what is not a frame
├── SettingsError              a setting is missing or wrong; the message names it
├── BuildError                 an image cannot be built; the message says what to do
├── WaitTimedOut               (TimeoutError) the caller's time-out is over; carries the job's last view, if any
└── JobError                   what a client raises for a job that did not complete; carries the job's view
    ├── JobFailed
    ├── JobCancelled
    └── JobTimedOut

A class with a `status` is an answer of the job service; `status` is its HTTP code.
The class docstring is the default message.
"""

from __future__ import annotations

from typing import Any


class RunpodWorkerError(Exception):
    """Something went wrong in runpod_worker."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class ServiceRefusal(RunpodWorkerError):
    """The job service refuses the request."""

    status = 500


class BadRequest(ServiceRefusal):
    """The request is not understood."""

    status = 400


class TooLarge(BadRequest):
    """The body exceeds the size limit."""

    @classmethod
    def over(cls, limit: int) -> TooLarge:
        """The platform's own words for a body over `limit` bytes; clients search for them."""
        return cls(f"bad request: body: exceeded max body size of {limit // 2**20}MiB")


class Unauthorized(ServiceRefusal):
    """no token provided"""

    status = 401


class JobNotFound(ServiceRefusal):
    """job not found"""

    status = 404


class EndpointNotFound(ServiceRefusal):
    """endpoint not found"""

    status = 404


class IllegalTransition(ServiceRefusal):
    """The job's status does not allow this."""

    status = 409


class StaleAttempt(ServiceRefusal):
    """This attempt is not held by this worker any more."""

    status = 409


class BacklogFull(ServiceRefusal):
    """The endpoint's backlog is full; try again later."""

    status = 429


class StoreUnavailable(ServiceRefusal):
    """The job store cannot be reached; nothing was written."""

    status = 503


class HandlerError(RunpodWorkerError):
    """The handler failed."""


class CheckFailed(HandlerError):
    """A fitness check failed."""

    def __init__(self, check: str, reason: str) -> None:
        super().__init__(f"the check {check} failed: {reason}")
        self.check = check
        self.reason = reason


class InputError(HandlerError):
    """The job's input is not what the handler asked for."""


class DeclarationError(RunpodWorkerError):
    """The worker is declared wrongly."""


class OutputError(RunpodWorkerError):
    """The handler's output cannot be sent."""


class JobStopped(BaseException):
    """The job was stopped: cancelled, out of time, or taken away from this worker."""


class DownloadRefused(RunpodWorkerError, ValueError):
    """The URL leads to where it must not, or to more than is taken."""


class DownloadFailed(RunpodWorkerError, OSError):
    """The server did not give the file. `passing`: it may do so if it is asked again."""

    def __init__(self, message: str = "", *, passing: bool = False) -> None:
        super().__init__(message)
        self.passing = passing


class LinkDown(RunpodWorkerError):
    """The job service cannot be reached."""


class LinkBusy(LinkDown):
    """The job service asks to be left alone for a while."""

    def __init__(self, message: str = "", retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class LinkRefused(RunpodWorkerError):
    """The job service refuses the request."""

    def __init__(self, message: str = "", status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class SpoolFull(RunpodWorkerError):
    """The spool has no room for one more outcome."""


class ChannelClosed(RunpodWorkerError):
    """The other process is gone."""


class ChannelGarbled(RunpodWorkerError):
    """The other process sent what is not a frame."""


class SettingsError(RunpodWorkerError):
    """A setting is missing or wrong."""


class WaitTimedOut(RunpodWorkerError, TimeoutError):
    """There was no answer in time."""

    def __init__(self, message: str = "", job: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.job: dict[str, Any] = job or {}


class BuildError(RunpodWorkerError):
    """The image cannot be built."""


class JobError(RunpodWorkerError):
    """The job did not complete. `job` is the service's last view of it."""

    def __init__(self, message: str = "", job: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.job: dict[str, Any] = job or {}


class JobFailed(JobError):
    """The job failed."""


class JobCancelled(JobError):
    """The job was cancelled."""


class JobTimedOut(JobError):
    """The job expired before it ended."""
