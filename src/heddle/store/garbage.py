"""What a deletion does to other objects: dependants by owner reference, and the contents of a namespace.

Kubernetes collects garbage some time later; here it is part of the same transaction as the deletion that causes
it, so a crash leaves no half-collected tree behind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from heddle.api.registry import NAMESPACES, Resource
from heddle.store.port import Object, Propagation

if TYPE_CHECKING:
    from heddle.store.transaction import Transaction

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"


def created(tx: Transaction, r: Resource, obj: Object) -> None:
    """Collect a new object at once when none of its owners exists."""
    _collect(tx, r, obj)


def updated(tx: Transaction, r: Resource, old: Object, new: Object) -> None:
    """Collect an object that was given only absent owners; let owners go that waited for it."""
    before, after = _references(old), _references(new)
    if before != after:
        _collect(tx, r, new)
        _release(tx, {ref["uid"] for ref in before})


def finalizers(tx: Transaction, r: Resource, obj: Object, propagation: Propagation) -> list[str]:
    """Finalizers that hold an object which is to be deleted this way."""
    held = [f for f in obj["metadata"].get("finalizers") or [] if f not in (FOREGROUND, ORPHAN)]
    if r.kind == "Namespace" and _contents(tx, obj["metadata"]["name"]):
        return [*held, "kubernetes"] if "kubernetes" not in held else held
    if propagation == "Orphan":
        _orphan(tx, obj)
    elif propagation == "Foreground" and _blocking(tx, obj["metadata"]["uid"]):
        return [*held, FOREGROUND]
    return held


def marked(tx: Transaction, r: Resource, obj: Object) -> None:
    """Start what a marked object waits for."""
    m = obj["metadata"]
    if r.kind == "Namespace":
        for resource, content in _contents(tx, m["name"]):
            tx_delete(tx, resource, content)
    elif FOREGROUND in m.get("finalizers", []):
        for resource, dependant in _dependants(tx, m["uid"]):
            has_own = bool(_dependants(tx, dependant["metadata"]["uid"]))
            tx_delete(tx, resource, dependant, "Foreground" if has_own else "Background")
        _release(tx, {m["uid"]})


def removed(tx: Transaction, r: Resource, obj: Object) -> None:
    """Collect what only the removed object owned, and let go what waited for it."""
    m = obj["metadata"]
    for resource, dependant in _dependants(tx, m["uid"]):
        _collect(tx, resource, dependant)
    tx.connection.execute("DELETE FROM owners WHERE owner = ?", (m["uid"],))
    _release(tx, {ref["uid"] for ref in _references(obj)})
    namespace = m.get("namespace")
    if namespace:
        found = tx.find(NAMESPACES, "", namespace)
        if found and "deletionTimestamp" in found[0]["metadata"] and not _contents(tx, namespace):
            _drop_finalizer(tx, NAMESPACES, found[0], "kubernetes")


def tx_delete(tx: Transaction, r: Resource, obj: Object, propagation: Propagation = "Background") -> None:
    """Delete an object unless an earlier step took it, or it is on its way already."""
    m = obj["metadata"]
    found = tx.find(r, m.get("namespace", ""), m["name"])
    if found is None or found[0]["metadata"]["uid"] != m["uid"]:
        return
    if "deletionTimestamp" not in found[0]["metadata"]:
        tx.delete(r, m["name"], m.get("namespace", ""), propagation=propagation)


def _collect(tx: Transaction, r: Resource, obj: Object) -> None:
    references = _references(obj)
    if not references:
        return
    present = [ref for ref in references if tx.by_uid(ref["uid"]) is not None]
    if not present:
        tx_delete(tx, r, obj)
    elif len(present) < len(references):
        _set_references(tx, r, obj, present)


def _orphan(tx: Transaction, owner: Object) -> None:
    uid = owner["metadata"]["uid"]
    for resource, dependant in _dependants(tx, uid):
        _set_references(tx, resource, dependant, [r for r in _references(dependant) if r["uid"] != uid])


def _set_references(tx: Transaction, r: Resource, obj: Object, references: list[dict[str, Any]]) -> None:
    m = {**obj["metadata"], "ownerReferences": references}
    tx.rewrite(r, obj, {**obj, "metadata": m})


def _release(tx: Transaction, owners: set[str]) -> None:
    for uid in owners:
        found = tx.by_uid(uid)
        if found and FOREGROUND in found[1]["metadata"].get("finalizers", []) and not _blocking(tx, uid):
            _drop_finalizer(tx, found[0], found[1], FOREGROUND)


def _drop_finalizer(tx: Transaction, r: Resource, obj: Object, finalizer: str) -> None:
    m = obj["metadata"]
    kept = [f for f in m.get("finalizers", []) if f != finalizer]
    new = {**obj, "metadata": {**m, "finalizers": kept}}
    if kept or m.get("deletionGracePeriodSeconds"):
        tx.rewrite(r, obj, new)
    else:
        tx.remove(r, new, msgspec.json.encode(obj))


def _references(obj: Object) -> list[dict[str, Any]]:
    return [ref for ref in obj["metadata"].get("ownerReferences") or [] if ref.get("uid")]


def _dependants(tx: Transaction, uid: str) -> list[tuple[Resource, Object]]:
    rows = tx.connection.execute("SELECT dependant FROM owners WHERE owner = ? ORDER BY dependant", (uid,)).fetchall()
    return [found for (dependant,) in rows if (found := tx.by_uid(dependant))]


def _blocking(tx: Transaction, uid: str) -> bool:
    return any(
        ref["uid"] == uid and ref.get("blockOwnerDeletion")
        for _, dependant in _dependants(tx, uid)
        for ref in _references(dependant)
    )


def _contents(tx: Transaction, namespace: str) -> list[tuple[Resource, Object]]:
    rows = tx.connection.execute("SELECT uid FROM objects WHERE namespace = ?", (namespace,)).fetchall()
    return [found for (uid,) in rows if (found := tx.by_uid(uid))]
