"""Events: what happened to an object, for people. Losing one never harms."""

import contextlib
import random
import time

from heddle.api.clock import to_text
from heddle.api.core import Event, EventSource, ObjectReference
from heddle.api.errors import ApiError
from heddle.api.meta import Kind, ObjectMeta
from heddle.api.registry import EVENTS
from heddle.store.client import Client


class EventRecorder:
    """Writes Events in the name of one component."""

    def __init__(self, client: Client, component: str) -> None:
        self._client, self._component = client, component

    async def record(self, about: Kind, reason: str, message: str, *, warning: bool = False) -> None:
        """Record that something happened to an object; a failure to write is not the caller's trouble."""
        meta = about.metadata
        namespace = meta.namespace or "default"
        now = to_text(time.time())
        event = Event(
            metadata=ObjectMeta(name=f"{meta.name}.{random.getrandbits(64):016x}", namespace=namespace),
            involved_object=ObjectReference(
                kind=about.kind, api_version=about.api_version, name=meta.name, namespace=meta.namespace, uid=meta.uid
            ),
            reason=reason,
            message=message,
            source=EventSource(component=self._component),
            reporting_component=self._component,
            type="Warning" if warning else "Normal",
            count=1,
            first_timestamp=now,
            last_timestamp=now,
        )
        with contextlib.suppress(ApiError):
            await self._client.create(EVENTS, event)
