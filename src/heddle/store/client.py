"""The Store port in terms of Structs, for controllers and the SDK."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec

from heddle.api.meta import Kind
from heddle.api.registry import PODS, Resource
from heddle.store.port import PatchType, Propagation, Store


@dataclass(frozen=True, slots=True)
class TypedEvent:
    """A watch event with its object decoded; None for a BOOKMARK."""

    type: str
    resource_version: str
    object: Any


@cache
def _decoder(r: Resource) -> msgspec.json.Decoder[Any]:
    assert r.type is not None
    return msgspec.json.Decoder(r.type)


def decode(r: Resource, blob: bytes) -> Any:
    """The Struct of an object of this resource."""
    return _decoder(r).decode(blob)


class Client:
    """Typed calls over any Store. Partial Structs never feed a replace: changes are patches."""

    def __init__(self, store: Store) -> None:
        self.store = store

    async def get(self, r: Resource, name: str, namespace: str = "") -> Any:
        """One object; raises NotFound."""
        return decode(r, await self.store.get(r, name, namespace))

    async def list(
        self, r: Resource, namespace: str = "", *, label_selector: str = "", field_selector: str = ""
    ) -> list[Any]:
        """All objects, page by page behind the scenes."""
        found: list[Any] = []
        continue_ = ""
        while True:
            page = await self.store.list(
                r,
                namespace,
                label_selector=label_selector,
                field_selector=field_selector,
                limit=500,
                continue_=continue_,
            )
            found += [decode(r, blob) for blob in page.items]
            continue_ = page.continue_
            if not continue_:
                return found

    async def watch(self, r: Resource, namespace: str = "", **options: Any) -> AsyncIterator[TypedEvent]:
        """Changes, decoded; options are those of `Store.watch`."""
        async for event in self.store.watch(r, namespace, **options):
            obj = None if event.type == "BOOKMARK" else decode(r, event.object)
            yield TypedEvent(event.type, event.resource_version, obj)

    async def create(self, r: Resource, obj: Kind, *, dry_run: bool = False) -> Any:
        """Create an object; its namespace is that of its metadata."""
        blob = await self.store.create(r, msgspec.to_builtins(obj), obj.metadata.namespace, dry_run=dry_run)
        return decode(r, blob)

    async def patch(
        self,
        r: Resource,
        name: str,
        patch: dict[str, Any],
        *,
        namespace: str = "",
        subresource: str = "",
    ) -> Any:
        """Change an object by a JSON merge patch."""
        blob = await self.store.patch(
            r, name, patch, namespace=namespace, type=PatchType.MERGE, subresource=subresource
        )
        return decode(r, blob)

    async def delete(
        self,
        r: Resource,
        name: str,
        namespace: str = "",
        *,
        uid: str = "",
        propagation: Propagation = "Background",
        grace_period: int | None = None,
    ) -> None:
        """Delete an object; raises NotFound."""
        await self.store.delete(r, name, namespace, uid=uid, propagation=propagation, grace_period=grace_period)

    async def bind(self, pod: str, namespace: str, node: str, *, annotations: dict[str, str] | None = None) -> None:
        """Bind a pod to a node; raises Conflict when it has one already or is being deleted."""
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": pod, "namespace": namespace, "annotations": annotations or {}},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        await self.store.create(PODS, binding, namespace, subresource="binding")
