"""The Store port: where objects live, whatever keeps them.

Reads give the JSON bytes of objects, so that a server passes them through and a typed caller decodes them once,
straight into a Struct (`heddle.store.client`). Writes take plain dicts, since what a user wrote may hold fields
that a Struct does not know. Errors are those of `heddle.api.errors`.

Two implementations pass one conformance suite: `heddle.store.sqlite` and `heddle.store.kubernetes`.
"""

from collections.abc import AsyncIterator
from contextvars import ContextVar
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, Protocol

from heddle.api.registry import Resource

Object = dict[str, Any]
"""An object as decoded JSON."""

Patch = dict[str, Any] | list[Any]
"""A patch as decoded JSON: a list of operations for a JSON patch, else an object."""

Propagation = Literal["Background", "Foreground", "Orphan"]
"""What becomes of an object's dependants when it is deleted."""

INITIAL_EVENTS_END = "k8s.io/initial-events-end"
"""Annotation of the bookmark that ends the initial events of a watch."""

user: ContextVar[str] = ContextVar("heddle_user", default="")
"""On whose behalf the current task writes; the server sets it, admission reads it."""


class PatchType(Enum):
    """How a patch is written; the value is its media type."""

    MERGE = "application/merge-patch+json"
    JSON = "application/json-patch+json"
    STRATEGIC = "application/strategic-merge-patch+json"


@dataclass(frozen=True, slots=True)
class Watched:
    """One event of a watch. An ERROR event is raised as an exception instead."""

    type: str
    """ADDED, MODIFIED, DELETED or BOOKMARK."""
    resource_version: str
    object: bytes


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list, as of one resourceVersion."""

    items: tuple[bytes, ...]
    resource_version: str
    continue_: str = ""
    """Pass it on for the next page; empty on the last."""
    remaining: int | None = None
    """How many items follow, where that is known (never with a selector)."""


class Store(Protocol):
    """Get, list, watch, create, replace, patch and delete objects."""

    async def get(self, r: Resource, name: str, namespace: str = "") -> bytes:
        """Return one object.

        Raises:
            NotFound: there is none of that name.
        """
        ...

    async def list(
        self,
        r: Resource,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = 0,
        continue_: str = "",
    ) -> Page:
        """Return objects ordered by namespace and name; no namespace means all namespaces.

        All pages of one list show the state at the resourceVersion of the first.

        Raises:
            BadRequest: a selector or continue token that cannot be read.
            Expired: the continue token is too old; start over.
        """
        ...

    def watch(
        self,
        r: Resource,
        namespace: str = "",
        *,
        resource_version: str = "",
        label_selector: str = "",
        field_selector: str = "",
        bookmarks: bool = False,
        send_initial_events: bool = False,
        timeout: float | None = None,
    ) -> AsyncIterator[Watched]:
        """Yield changes after `resource_version`, in order, each once, until `timeout` seconds have passed.

        Without a resourceVersion (or with "0") the watch starts with an ADDED event for each present object;
        with `send_initial_events` a bookmark annotated `k8s.io/initial-events-end` follows them. With a selector
        an object that begins to match is ADDED, one that ceases to is DELETED.

        Raises:
            Expired: changes since then are no longer kept; list again.
        """
        ...

    async def create(
        self, r: Resource, obj: Object, namespace: str = "", *, subresource: str = "", dry_run: bool = False
    ) -> bytes:
        """Store a new object and return it as stored.

        The subresource "binding" of pods takes a Binding (`metadata.name`, `target.name`) and binds that pod.

        Raises:
            AlreadyExists: the name is taken.
            NotFound: its namespace does not exist.
            Invalid: the object breaks its rules; all faults are in `causes`.
        """
        ...

    async def replace(self, r: Resource, obj: Object, *, subresource: str = "", dry_run: bool = False) -> bytes:
        """Replace an object (or, with subresource "status", its status) and return it as stored.

        Raises:
            Conflict: its resourceVersion or uid is not the current one.
            NotFound: there is none of that name.
        """
        ...

    async def patch(
        self,
        r: Resource,
        name: str,
        patch: Patch,
        *,
        namespace: str = "",
        type: PatchType = PatchType.MERGE,  # noqa: A002
        subresource: str = "",
        dry_run: bool = False,
    ) -> bytes:
        """Change an object by a patch and return it as stored; a patch without effect changes nothing.

        Raises:
            Conflict: the patch names a resourceVersion that is not the current one.
            NotFound: there is none of that name.
            Invalid: the patch does not apply, or its result breaks the rules.
            UnsupportedMediaType: a strategic merge patch of a kind that Kubernetes does not know.
        """
        ...

    async def delete(
        self,
        r: Resource,
        name: str,
        namespace: str = "",
        *,
        uid: str = "",
        resource_version: str = "",
        propagation: Propagation = "Background",
        grace_period: int | None = None,
    ) -> bytes:
        """Delete an object, or mark it where finalizers, a grace period or dependants hold it.

        Returns:
            The marked object, or a Status where the object is gone.

        Raises:
            Conflict: `uid` or `resource_version` is given and differs.
            NotFound: there is none of that name.
        """
        ...

    async def close(self) -> None:
        """End all watches and release what the store holds."""
        ...
