"""Every error this project raises on purpose. Classes without a module in brackets are in this file.

RunpodWorkerError
├── ServiceRefusal             an answer of the job service; `status` is the HTTP code
│   ├── BadRequest        400  the request is wrong; the message names the field
│   │   └── TooLarge      400  a body over its limit (the platform answers 400, not 413)
│   ├── Unauthorized      401  no key, or a key this endpoint does not accept
│   ├── JobNotFound       404  no such job, or its retention has ended
│   ├── EndpointNotFound  404  no such endpoint
│   ├── RouteNotFound     404  no such path [service.http.requests]
│   ├── MethodNotAllowed  405  the path does not know this method [service.http.requests]
│   ├── IllegalTransition 409  the job's status does not allow this
│   ├── StaleAttempt      409  a worker reports on an attempt it does not hold any more
│   ├── BacklogFull       429  the endpoint takes no more jobs for now
│   └── StoreUnavailable  503  the store cannot be reached or cannot write
├── HandlerError               the user's handler or model raised
│   ├── CheckFailed            a fitness check decided that this worker must not take jobs
│   ├── InputError             the job's input does not fit the type the handler asks for
│   └── Error                  an error in OpenAI's form, with a status [worker.handler.chat, public as openai.Error]
├── DeclarationError           the worker is declared wrongly: no handler, two handlers, wrong arguments
├── OutputError                the handler's output cannot be sent (not JSON, too large)
├── DownloadRefused            (ValueError) a URL leads to a forbidden address, or to more bytes than allowed
├── DownloadFailed             (OSError) a file cannot be downloaded
├── LinkDown                   the job service cannot be reached, or its answer is not valid
│   └── LinkBusy               it asks for a pause (429)
├── LinkRefused                the job service refuses a request; sending it again cannot help (4xx)
├── SpoolFull                  the spool has no room for another outcome
├── ChannelClosed              the other process, agent or executor, has closed its end
├── ChannelGarbled             the other process sent bytes that are not a frame
├── SettingsError              a setting is missing or wrong; the message names it
├── BuildError                 an image cannot be built; the message says what to do
├── WaitTimedOut               (TimeoutError) the caller's timeout has passed; carries the job's last view, if any
└── JobError                   a client's error for a job that did not complete; carries the job's view
    ├── JobFailed
    ├── JobCancelled
    └── JobTimedOut
JobStopped                     (BaseException) raised inside a handler whose job was stopped
AddressRefused                 (OSError) a name leads to no public address [net.connector]

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
        """The error of a body over `limit` bytes, in the platform's words: clients search for them."""
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
    """This worker does not hold this attempt any more."""

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
    """The job's input does not fit the type the handler asks for."""


class DeclarationError(RunpodWorkerError):
    """The worker is declared wrongly."""


class OutputError(RunpodWorkerError):
    """The handler's output cannot be sent."""


class JobStopped(BaseException):
    """The job was stopped: cancelled, out of time, or assigned to another worker."""


class DownloadRefused(RunpodWorkerError, ValueError):
    """The URL leads to a forbidden address, or to more bytes than allowed."""


class DownloadFailed(RunpodWorkerError, OSError):
    """The file cannot be downloaded. `passing`: another try may succeed."""

    def __init__(self, message: str = "", *, passing: bool = False) -> None:
        super().__init__(message)
        self.passing = passing


class LinkDown(RunpodWorkerError):
    """The job service cannot be reached."""


class LinkBusy(LinkDown):
    """The job service asks for a pause."""

    def __init__(self, message: str = "", retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class LinkRefused(RunpodWorkerError):
    """The job service refuses the request."""

    def __init__(self, message: str = "", status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class SpoolFull(RunpodWorkerError):
    """The spool has no room for another outcome."""


class ChannelClosed(RunpodWorkerError):
    """The other process has closed its end."""


class ChannelGarbled(RunpodWorkerError):
    """The other process sent bytes that are not a frame."""


class SettingsError(RunpodWorkerError):
    """A setting is missing or wrong."""


class WaitTimedOut(RunpodWorkerError, TimeoutError):
    """No answer came in time."""

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
