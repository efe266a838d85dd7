"""Writes as they happen inside one database transaction, in the writer thread.

Every method sees the effects of the ones before it, and appends to `changes`; the caller commits or rolls back.
Knows nothing of event loops, watchers or batches.
"""

import sqlite3
import zlib
from collections.abc import Callable
from typing import Any

import msgspec

from heddle.api.errors import AlreadyExists, BadRequest, Conflict, Forbidden, NotFound, TooLarge
from heddle.api.registry import NAMESPACES, Resource
from heddle.store import garbage, objects, patch
from heddle.store.port import Object, PatchType, Propagation
from heddle.store.watchers import Change

Admit = Callable[[Resource, Object | None, Object, str], Object]
"""(resource, old, new, operation) -> the object to store; operation is CREATE, UPDATE or STATUS."""

MAX_BYTES = 3 * 1024 * 1024
_DICT = msgspec.json.Decoder(dict[str, Any])
_TRIES = 8


def key(r: Resource) -> str:
    """How rows name a resource."""
    return f"{r.group}/{r.plural}"


class Transaction:
    """Reads and writes of objects on one connection."""

    def __init__(self, connection: sqlite3.Connection, version: int, admit: Admit | None) -> None:
        self.connection = connection
        self.version = version
        self.changes: list[Change] = []
        self._admit = admit

    # reads

    def find(self, r: Resource, namespace: str, name: str) -> tuple[Object, bytes] | None:
        """The object, decoded and as stored."""
        row = self.connection.execute(
            "SELECT object FROM objects WHERE resource = ? AND namespace = ? AND name = ?",
            (key(r), namespace if r.namespaced else "", name),
        ).fetchone()
        return (_DICT.decode(row[0]), row[0]) if row else None

    def held(self, r: Resource, namespace: str, name: str) -> tuple[Object, bytes]:
        """The object.

        Raises:
            NotFound: there is none.
        """
        found = self.find(r, namespace, name)
        if found is None:
            raise not_found(r, name)
        return found

    def by_uid(self, uid: str) -> tuple[Resource, Object] | None:
        """The object of that uid, with its resource as far as its row tells."""
        row = self.connection.execute("SELECT resource, object FROM objects WHERE uid = ?", (uid,)).fetchone()
        return (_resource(row[0], obj := _DICT.decode(row[1])), obj) if row else None

    # writes

    def create(self, r: Resource, obj: Object, namespace: str) -> bytes:
        """Store a new object."""
        objects.check_type(r, obj)
        namespace = objects.place(r, obj, namespace)
        self._check_namespace(r, namespace, obj)
        objects.prepare_create(r, obj)
        m = obj["metadata"]
        base = "" if m.get("name") else m.get("generateName") or ""
        if base:
            for _ in range(_TRIES):
                m["name"] = objects.generated(base)
                if self.find(r, namespace, m["name"]) is None:
                    break
        objects.check_name(r, obj)
        if self.find(r, namespace, m["name"]) is not None:
            raise AlreadyExists(
                f'{_full(r)} "{m["name"]}" already exists', kind=r.plural, group=r.group, name=m["name"]
            )
        if self._admit:
            obj = self._admit(r, None, obj, "CREATE")
        blob = self._put(r, obj, None, None)
        garbage.created(self, r, obj)
        return blob

    def bind(self, obj: Object, r: Resource, namespace: str) -> bytes:
        """Bind a pod to a node (the `binding` subresource): once, and never to another."""
        m, target = objects.meta(obj), (obj.get("target") or {}).get("name")
        if not target or not m.get("name"):
            raise BadRequest("a Binding needs metadata.name and target.name")
        old, blob = self.held(r, namespace or m.get("namespace") or "", m["name"])
        bound = (old.get("spec") or {}).get("nodeName")
        if bound or "deletionTimestamp" in old["metadata"]:
            why = (
                f"pod {m['name']} is already assigned to node {bound!r}"
                if bound
                else f"pod {m['name']} is being deleted"
            )
            raise Conflict(
                f'Operation cannot be fulfilled on pods/binding "{m["name"]}": {why}',
                kind="pods/binding", name=m["name"],
            )  # fmt: skip
        objects.check_version(r, m["name"], old, obj, patched=True)
        status = {**(old.get("status") or {})}
        others = [c for c in status.get("conditions") or [] if c.get("type") != "PodScheduled"]
        status["conditions"] = [
            *others, {"type": "PodScheduled", "status": "True", "lastTransitionTime": objects.now()},
        ]  # fmt: skip
        annotations = {**(old["metadata"].get("annotations") or {}), **(m.get("annotations") or {})}
        new = {**old, "spec": {**(old.get("spec") or {}), "nodeName": target}, "status": status}
        new["metadata"] = {**old["metadata"], "annotations": annotations}
        return self._put(r, new, old, blob)

    def replace(self, r: Resource, obj: Object, subresource: str) -> bytes:
        """Replace an object or its status."""
        objects.check_type(r, obj)
        m = objects.meta(obj)
        namespace = objects.place(r, obj, "")
        name = m.get("name") or ""
        if not name:
            objects.check_name(r, obj)
        old, blob = self.held(r, namespace, name)
        return self._update(r, old, blob, obj, subresource, patched=False)

    def patch(self, r: Resource, name: str, change: Any, namespace: str, type_: PatchType, subresource: str) -> bytes:
        """Change an object by a patch."""
        old, blob = self.held(r, namespace, name)
        new = patch.apply(r, old, change, type_)
        objects.check_type(r, new)
        m = objects.meta(new)
        if m.get("name") != name or (r.namespaced and m.get("namespace") != old["metadata"]["namespace"]):
            raise BadRequest(f"the name of the object ({m.get('name')}) does not match the name on the URL ({name})")
        return self._update(r, old, blob, new, subresource, patched=True)

    def _update(self, r: Resource, old: Object, blob: bytes, new: Object, subresource: str, *, patched: bool) -> bytes:
        name = old["metadata"]["name"]
        if subresource and subresource not in r.subresources:
            raise NotFound("the server could not find the requested resource")
        objects.check_version(r, name, old, new, patched=patched)
        new = objects.prepare_update(r, old, new, subresource)
        if self._admit:
            new = self._admit(r, old, new, "STATUS" if subresource else "UPDATE")
        if objects.same(objects.tidy(new), old):
            return blob
        m = new["metadata"]
        if "deletionTimestamp" in m and not m.get("finalizers") and not m.get("deletionGracePeriodSeconds"):
            return self.remove(r, new, blob)
        stored = self._put(r, new, old, blob)
        garbage.updated(self, r, old, new)
        return stored

    def delete(
        self,
        r: Resource,
        name: str,
        namespace: str,
        *,
        uid: str = "",
        resource_version: str = "",
        propagation: Propagation = "Background",
        grace_period: int | None = None,
    ) -> bytes:
        """Delete an object, or mark it."""
        old, blob = self.held(r, namespace, name)
        m = old["metadata"]
        for what, asked, is_ in (("UID", uid, m["uid"]), ("ResourceVersion", resource_version, m["resourceVersion"])):
            if asked and asked != is_:
                raise Conflict(
                    f'Operation cannot be fulfilled on {_full(r)} "{name}": Precondition failed: '
                    f"{what} in precondition: {asked}, {what} in object meta: {is_}",
                    kind=r.plural, group=r.group, name=name,
                )  # fmt: skip
        seconds = objects.grace(r, old, grace_period)
        marked = "deletionTimestamp" in m
        if marked and seconds:
            seconds = min(seconds, m.get("deletionGracePeriodSeconds") or 0)
        finalizers = garbage.finalizers(self, r, old, propagation)
        if not finalizers and not seconds:
            self.remove(r, old, blob)
            return _gone(r, m)
        new = {**old, "metadata": {**m, "finalizers": finalizers}}
        if not marked or seconds < (m.get("deletionGracePeriodSeconds") or 0):
            new["metadata"]["deletionTimestamp"] = objects.now(seconds)
            new["metadata"]["deletionGracePeriodSeconds"] = seconds
            if not marked and m.get("generation"):
                new["metadata"]["generation"] = m["generation"] + 1
        if r.kind == "Namespace":
            new["status"] = {**(new.get("status") or {}), "phase": "Terminating"}
        if not objects.same(objects.tidy(new), old):
            blob = self._put(r, new, old, blob)
        garbage.marked(self, r, new)
        found = self.find(r, namespace, name)
        return found[1] if found else _gone(r, m)

    def remove(self, r: Resource, obj: Object, previous: bytes) -> bytes:
        """Take an object away, and let its dependants know."""
        m = obj["metadata"]
        self.version += 1
        m = {**m, "resourceVersion": str(self.version)}
        last = msgspec.json.encode(objects.tidy({**obj, "metadata": m}))
        namespace = m.get("namespace", "")
        self.connection.execute(
            "DELETE FROM objects WHERE resource = ? AND namespace = ? AND name = ?", (key(r), namespace, m["name"])
        )
        self.connection.execute("DELETE FROM owners WHERE dependant = ?", (m["uid"],))
        self._log(r, namespace, m["name"], "DELETED", last, previous)
        garbage.removed(self, r, obj)
        return last

    def rewrite(self, r: Resource, old: Object, new: Object) -> bytes:
        """Store a change of metadata that the store itself makes."""
        return self._put(r, new, old, msgspec.json.encode(old))

    def _put(self, r: Resource, obj: Object, old: Object | None, previous: bytes | None) -> bytes:
        self.version += 1
        obj["metadata"]["resourceVersion"] = str(self.version)
        obj = objects.tidy(obj)
        blob = msgspec.json.encode(obj)
        if len(blob) > MAX_BYTES:
            raise TooLarge(f"the object has {len(blob)} bytes; the limit is {MAX_BYTES}")
        m = obj["metadata"]
        namespace, owners = m.get("namespace", ""), _owners(m)
        if old is None:
            self.connection.execute(
                "INSERT INTO objects VALUES (?, ?, ?, ?, ?, ?, ?)",
                (key(r), namespace, m["name"], m["uid"], self.version, zlib.crc32(blob), blob),
            )
        else:
            self.connection.execute(
                "UPDATE objects SET version = ?, checksum = ?, object = ? "
                "WHERE resource = ? AND namespace = ? AND name = ?",
                (self.version, zlib.crc32(blob), blob, key(r), namespace, m["name"]),
            )
        if owners != (_owners(old["metadata"]) if old else set()):
            self.connection.execute("DELETE FROM owners WHERE dependant = ?", (m["uid"],))
            self.connection.executemany("INSERT INTO owners VALUES (?, ?)", [(o, m["uid"]) for o in owners])
        self._log(r, namespace, m["name"], "MODIFIED" if old else "ADDED", blob, previous)
        return blob

    def _log(self, r: Resource, namespace: str, name: str, type_: str, blob: bytes, previous: bytes | None) -> None:
        self.connection.execute(
            "INSERT INTO changes VALUES (?, ?, ?, ?, ?, ?, ?)",
            (self.version, key(r), namespace, name, type_, blob, previous),
        )
        self.changes.append(Change(self.version, key(r), namespace, type_, blob, previous))

    def _check_namespace(self, r: Resource, namespace: str, obj: Object) -> None:
        if not r.namespaced:
            return
        found = self.find(NAMESPACES, "", namespace)
        if found is None:
            raise NotFound(f'namespaces "{namespace}" not found', kind="namespaces", name=namespace)
        if "deletionTimestamp" in found[0]["metadata"]:
            raise Forbidden(
                f'{_full(r)} "{objects.meta(obj).get("name", "")}" is forbidden: unable to create new content '
                f"in namespace {namespace} because it is being terminated",
                kind=r.plural, group=r.group, name=str(objects.meta(obj).get("name", "")),
            )  # fmt: skip


def not_found(r: Resource, name: str) -> NotFound:
    """The answer where there is no object of that name."""
    return NotFound(f'{_full(r)} "{name}" not found', kind=r.plural, group=r.group, name=name)


def _full(r: Resource) -> str:
    return f"{r.plural}.{r.group}" if r.group else r.plural


def _owners(m: dict[str, Any]) -> set[str]:
    return {o["uid"] for o in m.get("ownerReferences") or [] if isinstance(o, dict) and o.get("uid")}


def _resource(row: str, obj: Object) -> Resource:
    group, plural = row.split("/")
    version = obj["apiVersion"].rpartition("/")[2]
    return Resource(group, version, obj["kind"], plural, bool(obj["metadata"].get("namespace")))


def _gone(r: Resource, m: dict[str, Any]) -> bytes:
    details = {"name": m["name"], "group": r.group, "kind": r.plural, "uid": m["uid"]}
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
    return msgspec.json.encode({**status, "details": {k: v for k, v in details.items() if v}})
