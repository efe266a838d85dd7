"""A cache of one resource, kept by watching it.

One task watches from the beginning (the server streams what is there, one object after the other, before what
changes; an old one that does not is asked for a list) and resumes from the last version it saw. When that is no longer
kept (Expired) it begins again and reports the difference; other failures are retried with a growing pause. Handlers
run on the event loop, in the order of changes, and must not block.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from heddle.api.errors import ApiError, BadRequest, Expired, Invalid
from heddle.api.registry import Resource
from heddle.store.client import decode
from heddle.store.port import INITIAL_EVENTS_END, Store

log = logging.getLogger(__name__)

T = TypeVar("T")

Handler = Callable[[str, Any, Any], None]
"""(type, old or None, new or None): ADDED has no old, DELETED no new object."""

_PAUSE, _LONGEST = 0.1, 5.0  # seconds: who is blind must not be so for long after the server is back


class Informer(Generic[T]):
    """Typed objects of a resource by `namespace/name`, always at hand.

    Use it as `async with Informer(store, PODS) as pods: await pods.synced()`.
    """

    def __init__(
        self,
        store: Store,
        resource: Resource,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
    ) -> None:
        self.resource = resource
        self._store = store
        self._namespace = namespace
        self._selectors: dict[str, Any] = {"label_selector": label_selector, "field_selector": field_selector}
        self._objects: dict[str, T] = {}
        self._handlers: list[Handler] = []
        self._synced = asyncio.Event()
        self._seen: set[str] = set()  # what was told of so far, while all that is there is told
        self._streams = True
        self._task: asyncio.Task[None] | None = None
        self.resource_version = ""

    @property
    def objects(self) -> Mapping[str, T]:
        """The cache, by `namespace/name` (or name). Treat its objects as read-only."""
        return MappingProxyType(self._objects)

    def get(self, name: str, namespace: str = "") -> T | None:
        """An object from the cache."""
        return self._objects.get(f"{namespace}/{name}" if namespace else name)

    def on_change(self, handler: Handler) -> None:
        """Call a handler at each change; one that is added late is first told what is there."""
        self._handlers.append(handler)
        for obj in list(self._objects.values()):
            handler("ADDED", None, obj)

    async def synced(self) -> None:
        """Wait for the first list."""
        await self._synced.wait()

    def start(self) -> None:
        """Begin to list and watch."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"informer of {self.resource.plural}")

    async def run(self) -> None:
        """List and watch until cancelled, as a task of the caller's."""
        await self._run()

    async def stop(self) -> None:
        """Stop watching; the cache stays as it is."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def __aenter__(self) -> "Informer[T]":
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _run(self) -> None:
        pause = _PAUSE
        while True:
            try:
                self._seen.clear()
                if not self.resource_version and not self._streams:
                    await self._list()
                before = self.resource_version
                await self._watch()
                if self.resource_version != before:
                    pause = _PAUSE
            except Expired:
                self.resource_version = ""
            except ApiError as error:
                if isinstance(error, BadRequest | Invalid) and self._streams and not self.resource_version:
                    log.info("%s are listed: the server does not stream them (%s)", self.resource.plural, error)
                    self._streams = False
                    continue
                log.warning("watching %s: %s; trying again in about %.1f s", self.resource.plural, error, pause)
            await asyncio.sleep(pause * random.uniform(0.5, 1))
            pause = min(pause * 2, _LONGEST)

    async def _list(self) -> None:
        page = await self._store.list(self.resource, self._namespace, **self._selectors)
        for blob in page.items:
            obj = decode(self.resource, blob)
            key = _key(obj)
            self._seen.add(key)
            self._put(key, obj)
        self._all_seen()
        self.resource_version = page.resource_version

    def _all_seen(self) -> None:
        """What was told from the beginning on is all that there is."""
        for key in [k for k in self._objects if k not in self._seen]:
            self._tell("DELETED", self._objects.pop(key), None)
        self._seen.clear()
        self._synced.set()

    async def _watch(self) -> None:
        """Follow changes, from the beginning on where no version is known: then all that is there comes first."""
        beginning = not self.resource_version
        events = self._store.watch(
            self.resource,
            self._namespace,
            resource_version=self.resource_version,
            bookmarks=True,
            send_initial_events=beginning,
            **self._selectors,
        )
        async for event in events:
            if event.type == "BOOKMARK":
                if beginning and INITIAL_EVENTS_END.encode() in event.object:
                    beginning = False
                    self._all_seen()
            else:
                obj = decode(self.resource, event.object)
                key = _key(obj)
                if event.type == "DELETED":
                    self._seen.discard(key)
                    self._tell("DELETED", self._objects.pop(key, obj), None)
                else:
                    if beginning:
                        self._seen.add(key)
                    self._put(key, obj)
            if not beginning:
                self.resource_version = event.resource_version

    def _put(self, key: str, obj: Any) -> None:
        old = self._objects.get(key)
        if old is not None and _version(old) == _version(obj):
            return
        self._objects[key] = obj
        if old is not None and _uid(old) != _uid(obj):
            self._tell("DELETED", old, None)
            old = None
        self._tell("ADDED" if old is None else "MODIFIED", old, obj)

    def _tell(self, type_: str, old: Any, new: Any) -> None:
        for handler in self._handlers:
            try:
                handler(type_, old, new)
            except Exception:
                log.exception("a handler of %s failed", self.resource.plural)


def _key(obj: Any) -> str:
    if isinstance(obj, dict):
        m = obj["metadata"]
        return f"{m['namespace']}/{m['name']}" if m.get("namespace") else str(m["name"])
    return str(obj.key)


def _version(obj: Any) -> str:
    return str(obj["metadata"]["resourceVersion"] if isinstance(obj, dict) else obj.metadata.resource_version)


def _uid(obj: Any) -> str:
    return str(obj["metadata"]["uid"] if isinstance(obj, dict) else obj.metadata.uid)


class Informers:
    """One informer a resource for all parts of a process: each object is decoded and kept once.

    Ask with `of` before or after `run`; handlers that are added late are first told what is there.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._of: dict[str, Informer[Any]] = {}
        self._group: asyncio.TaskGroup | None = None

    def of(self, resource: Resource) -> Informer[Any]:
        """The informer of all objects of a resource."""
        informer = self._of.get(resource.path())
        if informer is None:
            informer = self._of[resource.path()] = Informer(self.store, resource)
            if self._group is not None:
                self._group.create_task(informer.run())
        return informer

    async def run(self) -> None:
        """List and watch until cancelled."""
        async with asyncio.TaskGroup() as self._group:
            for informer in self._of.values():
                self._group.create_task(informer.run())
