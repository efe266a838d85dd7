"""Typed access to a Store: Structs in, Structs out."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, cast

import msgspec

from heddle.api.meta import Kind
from heddle.api.registry import Resource
from heddle.store.port import Object, Patch, PatchType, Propagation, Store


def decode(r: Resource, blob: bytes) -> Any:
    """The Struct of an object's bytes (a dict where the resource has no Struct)."""
    return msgspec.json.decode(blob, type=r.type or dict[str, Any])


def encode(obj: Kind | Object) -> Object:
    """An object as decoded JSON, as writes take it."""
    return obj if isinstance(obj, dict) else cast("Object", msgspec.to_builtins(obj))


@dataclass(frozen=True, slots=True)
class Typed:
    """One event of a typed watch; a bookmark has no object."""

    type: str
    resource_version: str
    object: Any


class Client:
    """The calls of a Store with Structs in the place of bytes. Errors are the Store's."""

    def __init__(self, store: Store) -> None:
        self.store = store

    async def get(self, r: Resource, name: str, namespace: str = "") -> Any:
        """One object."""
        return decode(r, await self.store.get(r, name, namespace))

    async def list(
        self, r: Resource, namespace: str = "", *, label_selector: str = "", field_selector: str = ""
    ) -> "list[Any]":
        """All objects that are selected."""
        page = await self.store.list(r, namespace, label_selector=label_selector, field_selector=field_selector)
        return [decode(r, blob) for blob in page.items]

    async def watch(self, r: Resource, namespace: str = "", **options: Any) -> AsyncIterator[Typed]:
        """Changes; the options are those of `Store.watch`."""
        async for event in self.store.watch(r, namespace, **options):
            obj = None if event.type == "BOOKMARK" else decode(r, event.object)
            yield Typed(event.type, event.resource_version, obj)

    async def create(self, r: Resource, obj: Kind | Object, namespace: str = "", *, dry_run: bool = False) -> Any:
        """Store a new object; returns it as stored."""
        return decode(r, await self.store.create(r, encode(obj), namespace, dry_run=dry_run))

    async def bind(
        self,
        r: Resource,
        name: str,
        namespace: str,
        node: str,
        *,
        uid: str = "",
        annotations: dict[str, str] | None = None,
    ) -> None:
        """Bind a pod to a node, and annotate it in the same write.

        Raises:
            Conflict: it is bound already, is being deleted, or is not the pod with this UID.
        """
        metadata = {"name": name, "annotations": annotations or {}} | ({"uid": uid} if uid else {})
        binding = {"metadata": metadata, "target": {"apiVersion": "v1", "kind": "Node", "name": node}}
        await self.store.create(r, binding, namespace, subresource="binding")

    async def patch(
        self,
        r: Resource,
        name: str,
        patch: Patch,
        namespace: str = "",
        *,
        type: PatchType = PatchType.MERGE,  # noqa: A002
        subresource: str = "",
    ) -> Any:
        """Change an object; returns it as stored."""
        answer = await self.store.patch(r, name, patch, namespace=namespace, type=type, subresource=subresource)
        return decode(r, answer)

    async def patch_status(self, r: Resource, name: str, status: Object, namespace: str = "") -> Any:
        """Merge into an object's status; returns the object as stored."""
        return await self.patch(r, name, {"status": status}, namespace, subresource="status")

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
        """Delete an object."""
        await self.store.delete(r, name, namespace, uid=uid, propagation=propagation, grace_period=grace_period)
