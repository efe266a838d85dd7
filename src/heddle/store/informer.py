"""A cache of all objects of one resource, kept true by list and watch.

One task an informer. Handlers run on the event loop, in the order of events, before the cache's next event; they must
not block. After an interruption the watch resumes where it was; where the store no longer keeps so much, the informer
lists again and reports the differences. Nothing polls.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from heddle.api.errors import ApiError, Expired
from heddle.api.meta import Kind
from heddle.api.registry import Resource
from heddle.store.client import Client, decode
from heddle.store.port import Store

_log = logging.getLogger(__name__)

T = TypeVar("T", bound=Kind)

Handler = Callable[[str, Any, Any], None]
"""(ADDED | MODIFIED | DELETED, old or None, new or None)."""

_FIRST_DELAY, _LAST_DELAY = 0.05, 10.0


class Informer(Generic[T]):
    """Objects of one resource by key (`namespace/name`, or the name)."""

    def __init__(
        self,
        store: Store,
        resource: Resource,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
    ) -> None:
        self._store, self._resource, self._namespace = store, resource, namespace
        self._selectors = {"label_selector": label_selector, "field_selector": field_selector}
        self._handlers: list[Handler] = []
        self._synced = asyncio.Event()
        self._version = ""
        self.objects: dict[str, T] = {}

    def on_change(self, handler: Handler) -> None:
        """Call this on every change, the present objects included (as ADDED)."""
        self._handlers.append(handler)

    async def synced(self) -> None:
        """Return once the cache has held everything at least once."""
        await self._synced.wait()

    async def run(self) -> None:
        """Follow the store until cancelled."""
        delay = _FIRST_DELAY
        while True:
            try:
                if not self._version:
                    await self._list()
                    self._synced.set()
                delay = _FIRST_DELAY
                await self._watch()
            except Expired:
                self._version = ""
            except (ApiError, OSError) as error:
                _log.warning("%s: %s; again in %.1f s", self._resource.plural, error, delay)
                await asyncio.sleep(delay)
                delay = min(_LAST_DELAY, delay * 2)

    async def _list(self) -> None:
        found: dict[str, T] = {}
        continue_ = ""
        while True:
            page = await self._store.list(
                self._resource, self._namespace, limit=500, continue_=continue_, **self._selectors
            )
            for blob in page.items:
                obj = decode(self._resource, blob)
                found[obj.key] = obj
            if not (continue_ := page.continue_):
                break
        for key in [k for k in self.objects if k not in found]:
            self._tell("DELETED", self.objects.pop(key), None)
        for key, obj in found.items():
            old = self.objects.get(key)
            self.objects[key] = obj
            if old is None or old.metadata.resource_version != obj.metadata.resource_version:
                self._tell("MODIFIED" if old else "ADDED", old, obj)
        self._version = page.resource_version

    async def _watch(self) -> None:
        client = Client(self._store)
        events = client.watch(
            self._resource, self._namespace, resource_version=self._version, bookmarks=True, **self._selectors
        )
        async for event in events:
            self._version = event.resource_version
            if event.object is None:
                continue
            key = event.object.key
            if event.type == "DELETED":
                if (old := self.objects.pop(key, None)) is not None:
                    self._tell("DELETED", old, None)
            else:
                old = self.objects.get(key)
                self.objects[key] = event.object
                self._tell("MODIFIED" if old else "ADDED", old, event.object)

    def _tell(self, type_: str, old: T | None, new: T | None) -> None:
        for handler in self._handlers:
            try:
                handler(type_, old, new)
            except Exception:
                _log.exception("handler of %s", self._resource.plural)
