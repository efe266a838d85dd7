"""The Kubernetes Status object, which carries every error over the wire."""

from typing import Any

from heddle.api.meta import Struct


class StatusCause(Struct):
    """One fault among several."""

    reason: str = ""
    message: str = ""
    field: str = ""


class StatusDetails(Struct):
    """Which object an error is about, and its faults."""

    name: str = ""
    group: str = ""
    kind: str = ""
    uid: str = ""
    causes: list[StatusCause] = []
    retry_after_seconds: int = 0


class Status(Struct, omit_defaults=False):
    """Outcome of a call that does not answer with an object."""

    api_version: str = "v1"
    kind: str = "Status"
    metadata: dict[str, Any] = {}
    status: str = "Failure"
    message: str = ""
    reason: str = ""
    details: StatusDetails | None = None
    code: int = 500
