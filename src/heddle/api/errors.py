"""Errors of the API, one class for each reason that callers tell apart."""

from typing import Any, ClassVar

import msgspec

from heddle.api.status import Status, StatusCause, StatusDetails


class ApiError(Exception):
    """An answer other than success; `status` is what goes over the wire."""

    CODE: ClassVar[int] = 500
    REASON: ClassVar[str] = "InternalError"

    def __init__(
        self,
        message: str = "",
        *,
        kind: str = "",
        name: str = "",
        group: str = "",
        causes: list[StatusCause] | None = None,
        retry_after: int = 0,
        status: Status | None = None,
    ) -> None:
        """From a message and, where known, the object it is about."""
        if status is None:
            details = None
            if kind or name or causes or retry_after:
                details = StatusDetails(
                    name=name, group=group, kind=kind, causes=causes or [], retry_after_seconds=retry_after
                )
            status = Status(message=message, reason=self.REASON, code=self.CODE, details=details)
        self.status = status
        super().__init__(status.message)

    @property
    def causes(self) -> list[StatusCause]:
        """The single faults, where the answer lists them."""
        return self.status.details.causes if self.status.details else []

    @staticmethod
    def from_status(body: Any, code: int) -> "ApiError":
        """The error for an HTTP answer: `body` is the decoded Status, or whatever came instead of one."""
        try:
            status = msgspec.convert(body, Status)
        except msgspec.ValidationError:
            status = Status(message=str(body)[:500] or f"HTTP {code}", code=code)
        status.code = status.code or code
        for cls in _CLASSES:
            if status.reason == cls.REASON or (not status.reason and code == cls.CODE):
                return cls(status=status)
        by_code = next((cls for cls in _CLASSES if code == cls.CODE), ApiError)
        return by_code(status=status)


class BadRequest(ApiError):
    """The request makes no sense."""

    CODE, REASON = 400, "BadRequest"


class Unauthorized(ApiError):
    """No valid token."""

    CODE, REASON = 401, "Unauthorized"


class Forbidden(ApiError):
    """Known, but not allowed."""

    CODE, REASON = 403, "Forbidden"


class NotFound(ApiError):
    """No such object."""

    CODE, REASON = 404, "NotFound"


class MethodNotAllowed(ApiError):
    """The path is there, the verb is not."""

    CODE, REASON = 405, "MethodNotAllowed"


class NotAcceptable(ApiError):
    """No common media type."""

    CODE, REASON = 406, "NotAcceptable"


class AlreadyExists(ApiError):
    """The name is taken."""

    CODE, REASON = 409, "AlreadyExists"


class Conflict(ApiError):
    """Somebody else changed the object first: read it again and retry."""

    CODE, REASON = 409, "Conflict"


class Expired(ApiError):
    """The resourceVersion is older than what is kept: list again."""

    CODE, REASON = 410, "Expired"


class TooLarge(ApiError):
    """The body is over the limit."""

    CODE, REASON = 413, "RequestEntityTooLarge"


class UnsupportedMediaType(ApiError):
    """The body's media type is not understood here."""

    CODE, REASON = 415, "UnsupportedMediaType"


class Invalid(ApiError):
    """The object breaks its rules; `causes` lists all faults."""

    CODE, REASON = 422, "Invalid"


class TooManyRequests(ApiError):
    """Slow down; `details.retryAfterSeconds` says how long."""

    CODE, REASON = 429, "TooManyRequests"


class InternalError(ApiError):
    """Our fault."""

    CODE, REASON = 500, "InternalError"


class Unavailable(ApiError):
    """Not now."""

    CODE, REASON = 503, "ServiceUnavailable"


class Unreachable(Unavailable):
    """Nobody answered: whether what was asked for was done is not known."""


class InsufficientStorage(ApiError):
    """No room on the disk; nothing was written."""

    CODE, REASON = 507, "InsufficientStorage"


_CLASSES: tuple[type[ApiError], ...] = (
    BadRequest, Unauthorized, Forbidden, NotFound, MethodNotAllowed, NotAcceptable, AlreadyExists, Conflict,
    Expired, TooLarge, UnsupportedMediaType, Invalid, TooManyRequests, Unavailable, InsufficientStorage,
    InternalError,
)  # fmt: skip
