"""The objects that say how many pods belong together, of the kinds that the cluster has."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from heddle.api.errors import ApiError
from heddle.control.grouping.kinds import Owner, OwnerKind
from heddle.store.informer import Handler, Informer, Informers
from heddle.store.kubernetes import KubernetesStore

_log = logging.getLogger(__name__)

_LOOK_EVERY = 60.0
"""Seconds between looks for kinds that were not there: their definitions may be installed at any time."""

Changed = Callable[[str, str, str], None]
"""Told (kind, namespace, name) of an object that came, changed or went."""


class Owners:
    """Informers of those kinds of the table that the API server serves."""

    def __init__(self, store: KubernetesStore, informers: Informers, kinds: Sequence[OwnerKind]) -> None:
        self._store, self._informers, self._kinds = store, informers, list(kinds)
        self._known: dict[str, Informer[Owner]] = {}
        self._changed: Changed = lambda kind, namespace, name: None

    def on_change(self, changed: Changed) -> None:
        """Call this at each change."""
        self._changed = changed

    def get(self, kind: OwnerKind, namespace: str, name: str) -> Owner | None:
        """One object, where it is known."""
        informer = self._known.get(kind.kind)
        return informer.get(name, namespace) if informer else None

    async def find(self) -> None:
        """Begin to follow the kinds that are served now, and wait until their objects are known."""
        for kind in [k for k in self._kinds if k.kind not in self._known]:
            if await self._served(kind):
                informer: Informer[Owner] = self._informers.of(kind.resource)
                self._known[kind.kind] = informer
                informer.on_change(self._handler(kind.kind))
        for informer in list(self._known.values()):
            await informer.synced()

    async def run(self) -> None:
        """Look for kinds that were not there, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            try:
                await self.find()
            except ApiError as error:
                _log.warning("kinds of the cluster: %s", error)

    async def _served(self, kind: OwnerKind) -> bool:
        try:
            answer = await self._store.read(f"/apis/{kind.group}/{kind.version}")
        except ApiError as error:
            if error.status.code == 404:
                return False
            raise
        listed: list[dict[str, Any]] = msgspec.json.decode(answer).get("resources") or []
        return any(resource.get("name") == kind.plural for resource in listed)

    def _handler(self, kind: str) -> Handler:
        def tell(type_: str, old: Owner | None, new: Owner | None) -> None:
            meta = (new or old or {})["metadata"]
            self._changed(kind, meta.get("namespace", ""), meta["name"])

        return tell
