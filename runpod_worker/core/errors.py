"""Every error this project raises on purpose; docs/errors.md draws them as a tree.

The first line of the class docstring is the default message.
"""

from __future__ import annotations

from typing import Any


class RunpodWorkerError(Exception):
    """Something went wrong in runpod_worker."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message or (type(self).__doc__ or "").strip().partition("\n")[0])


class ServiceRefusal(RunpodWorkerError):
    """The job service refuses the request."""

    status = 500

    def __init_subclass__(cls, status: int | None = None) -> None:
        if status is not None:
            cls.status = status


class BadRequest(ServiceRefusal, status=400):
    """The request is not understood."""


class TooLarge(BadRequest):
    """The body exceeds the size limit."""

    @classmethod
    def over(cls, limit: int) -> TooLarge:
        """The error of a body over `limit` bytes, in the platform's words: clients search for them."""
        return cls(f"bad request: body: exceeded max body size of {limit // 2**20}MiB")


class Unauthorized(ServiceRefusal, status=401):
    """no token provided"""


class JobNotFound(ServiceRefusal, status=404):
    """job not found"""


class EndpointNotFound(ServiceRefusal, status=404):
    """endpoint not found"""


class IllegalTransition(ServiceRefusal, status=409):
    """The job's status does not allow this."""


class StaleAttempt(ServiceRefusal, status=409):
    """This worker does not hold this attempt any more."""


class BacklogFull(ServiceRefusal, status=429):
    """The endpoint's backlog is full; try again later."""


class StoreUnavailable(ServiceRefusal, status=503):
    """The job store cannot be reached; nothing was written."""


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
    """The file cannot be downloaded.

    `passing`: another try may succeed.
    """

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


class BodyRefused(LinkRefused):
    """The job service refuses what the report contains, so sending it again cannot help."""


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
    """The job did not complete.

    `job` is the service's last view of it.
    """

    def __init__(self, message: str = "", job: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.job: dict[str, Any] = job or {}


class JobFailed(JobError):
    """The job failed."""


class JobCancelled(JobError):
    """The job was cancelled."""


class JobTimedOut(JobError):
    """The job expired before it ended."""
