"""Changes on their way from the writer to those who watch.

The writer publishes each committed change once into a ring per resource; a watcher keeps only its position and
reads on from there, so a slow one costs no memory: when the ring has moved past it, it reads the change log, and
when that has been compacted, it gets Expired. Decoding a change happens once, whatever the number of watchers.
"""

import asyncio
import threading
from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import msgspec

from heddle.api.registry import Resource
from heddle.api.selectors import FIELDS, FieldSelector, LabelSelector
from heddle.store.port import Object, Watched

RING = 512


class _Meta(msgspec.Struct):
    labels: dict[str, str] = {}


class _Head(msgspec.Struct):
    metadata: _Meta


_HEAD = msgspec.json.Decoder(_Head)
_DICT = msgspec.json.Decoder(dict[str, Any])


@dataclass(frozen=True)
class Change:
    """One committed change: the object after it (before it, for DELETED) and what it was."""

    version: int
    resource: str
    namespace: str
    type: str
    object: bytes
    previous: bytes | None

    @cached_property
    def new(self) -> Object:
        """The object, as far as selectors look at it."""
        return _view(self.object)

    @cached_property
    def old(self) -> Object | None:
        """What it was, as far as selectors look at it."""
        return _view(self.previous) if self.previous else None


def _view(blob: bytes) -> Object:
    """What a selector can ask about: a decoded object is ten times its text, and changes are kept for a while."""
    obj = _DICT.decode(blob)
    meta = obj["metadata"]
    view: Object = {"metadata": {k: meta[k] for k in ("name", "namespace", "labels") if k in meta}}
    for path in FIELDS.get(obj.get("kind", ""), ()):
        *parents, leaf = path.split(".")
        source: Any = obj
        target = view
        for parent in parents:
            source = source.get(parent) or {}
            target = target.setdefault(parent, {})
        if leaf in source:
            target[leaf] = source[leaf]
    return view


@dataclass(frozen=True, slots=True)
class Filter:
    """What a list or watch selects."""

    namespace: str
    labels: LabelSelector
    fields: FieldSelector

    @staticmethod
    def parse(r: Resource, namespace: str, labels: str, fields: str) -> "Filter":
        """From the query's texts.

        Raises:
            BadRequest: a selector that cannot be read, or a field that the kind cannot be selected by.
        """
        return Filter(
            namespace if r.namespaced else "", LabelSelector.parse(labels), FieldSelector.parse(fields, r.kind)
        )

    @property
    def everything(self) -> bool:
        """Whether there is no selector (a namespace may still be asked for)."""
        return not self.labels.terms and not self.fields.terms

    def selects(self, blob: bytes) -> bool:
        """Whether an encoded object is selected, its namespace aside."""
        if self.fields.terms:
            return self._decoded(_DICT.decode(blob))
        return not self.labels.terms or self.labels.matches(_HEAD.decode(blob).metadata.labels)

    def _decoded(self, obj: Object | None) -> bool:
        return obj is not None and self.labels.matches(obj["metadata"].get("labels")) and self.fields.matches(obj)

    def event(self, change: Change) -> Watched | None:
        """What a watcher with this filter sees of a change."""
        if self.namespace and change.namespace != self.namespace:
            return None
        version = str(change.version)
        if self.everything:
            return Watched(change.type, version, change.object)
        was = self._decoded(change.old)
        now = change.type != "DELETED" and self._decoded(change.new)
        if now:
            return Watched("MODIFIED" if was else "ADDED", version, change.object)
        if not was:
            return None
        if change.type == "DELETED":
            return Watched("DELETED", version, change.object)
        assert change.previous is not None
        old = _DICT.decode(change.previous)
        gone = {**old, "metadata": {**old["metadata"], "resourceVersion": version}}
        return Watched("DELETED", version, msgspec.json.encode(gone))


class Waiter:
    """Wakes one watcher, on its own event loop."""

    __slots__ = ("event", "loop")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.event = asyncio.Event()


@dataclass(slots=True)
class _Ring:
    floor: int  # changes after this version are all here
    changes: list[Change] = field(default_factory=list)
    waiters: set[Waiter] = field(default_factory=set)


class Hub:
    """The rings, one a resource. Written by the writer thread, read by any event loop."""

    def __init__(self, version: int) -> None:
        self._lock = threading.Lock()
        self._start = version
        self.version = version
        self._rings: dict[str, _Ring] = {}

    def _ring(self, resource: str) -> _Ring:
        ring = self._rings.get(resource)
        if ring is None:
            ring = self._rings[resource] = _Ring(self._start)
        return ring

    def publish(self, changes: list[Change], version: int) -> set[Waiter]:
        """Add committed changes; returns those to wake, each on its loop."""
        woken: set[Waiter] = set()
        with self._lock:
            for change in changes:
                ring = self._ring(change.resource)
                ring.changes.append(change)
                woken |= ring.waiters
                if len(ring.changes) > 2 * RING:
                    ring.floor = ring.changes[RING - 1].version
                    del ring.changes[:RING]
            self.version = version
        return woken

    def since(self, resource: str, version: int) -> tuple[list[Change] | None, int]:
        """Changes after `version` (None: the ring no longer reaches back so far) and the version they lead to."""
        with self._lock:
            ring = self._ring(resource)
            if version < ring.floor:
                return None, self.version
            if not ring.changes or ring.changes[-1].version <= version:
                return [], max(self.version, version)
            at = bisect_right(ring.changes, version, key=lambda c: c.version)
            return ring.changes[at:], self.version

    def forget(self, version: int) -> None:
        """Drop changes up to a version that the change log no longer holds either."""
        with self._lock:
            self._start = max(self._start, version)
            for ring in self._rings.values():
                if ring.floor < version:
                    ring.floor = version
                    ring.changes = [c for c in ring.changes if c.version > version]

    def join(self, resource: str) -> Waiter:
        """Be woken at each change of a resource."""
        waiter = Waiter()
        with self._lock:
            self._ring(resource).waiters.add(waiter)
        return waiter

    def leave(self, resource: str, waiter: Waiter) -> None:
        """Be woken no more."""
        with self._lock:
            self._ring(resource).waiters.discard(waiter)

    def everyone(self) -> set[Waiter]:
        """All who wait, to wake them at the end."""
        with self._lock:
            return {waiter for ring in self._rings.values() for waiter in ring.waiters}
