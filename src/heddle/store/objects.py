"""Rules that every object keeps, whoever writes it: names, metadata, generation, status.

Pure functions over decoded JSON; they follow the API server's generic registry
(k8s.io/apiserver/pkg/registry/rest: BeforeCreate, BeforeUpdate, BeforeDelete).
"""

import random
import re
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from heddle.api.errors import BadRequest, Conflict, Invalid
from heddle.api.registry import Resource
from heddle.api.status import StatusCause
from heddle.store.patch import is_core
from heddle.store.port import Object

_NAME = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"  # no vowels, no look-alikes (k8s.io/apimachinery/pkg/util/rand)
_GENERATED = 63
_KEPT = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation")


def now(after: float = 0) -> str:
    """The time, as Kubernetes writes it."""
    return (datetime.now(UTC) + timedelta(seconds=after)).strftime("%Y-%m-%dT%H:%M:%SZ")


def meta(obj: Object) -> dict[str, Any]:
    """The object's metadata; an absent one is put in place."""
    held = obj.setdefault("metadata", {})
    if not isinstance(held, dict):
        raise BadRequest("metadata is not an object")
    return held


def check_type(r: Resource, obj: Object) -> None:
    """Refuse an object of another kind, and name the kind where it is left out.

    Raises:
        BadRequest: it says that it is something else.
    """
    version, kind = obj.get("apiVersion") or r.api_version, obj.get("kind") or r.kind
    if (version, kind) != (r.api_version, r.kind):
        raise BadRequest(f"the object is a {kind} of {version}, the collection holds {r.kind} of {r.api_version}")
    obj["apiVersion"], obj["kind"] = version, kind


def place(r: Resource, obj: Object, namespace: str) -> str:
    """The namespace that an object goes to.

    Raises:
        BadRequest: the object names another one, or none is given.
    """
    own = meta(obj).get("namespace") or ""
    if not r.namespaced:
        meta(obj).pop("namespace", None)
        return ""
    if own and namespace and own != namespace:
        raise BadRequest(
            f"the namespace of the object ({own}) does not match the namespace on the request ({namespace})"
        )
    chosen = own or namespace
    if not chosen:
        raise BadRequest(f"{r.kind} is namespaced: an empty namespace may not be set during creation")
    meta(obj)["namespace"] = chosen
    return chosen


def prepare_create(r: Resource, obj: Object) -> None:
    """Fill in what the server owns on a new object, its name aside."""
    m = meta(obj)
    if m.get("resourceVersion"):
        raise BadRequest("resourceVersion should not be set on objects to be created")
    for name in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"):
        m.pop(name, None)
    m["uid"] = str(uuid.uuid4())
    m["creationTimestamp"] = now()
    if has_generation(r):
        m["generation"] = 1
    if r.kind == "Pod" and is_core(r):
        obj["status"] = {"phase": "Pending"}
    elif r.kind == "Namespace" and is_core(r):
        obj["status"] = {"phase": "Active"}
    elif "status" in r.subresources and r.kind != "Node":
        obj.pop("status", None)


def has_generation(r: Resource) -> bool:
    """Kubernetes counts generations of custom resources and of pods; its other kinds here have none."""
    return not is_core(r) or r.kind == "Pod"


def generated(base: str) -> str:
    """A name from a generateName."""
    return base[: _GENERATED - 5] + "".join(random.choices(_SUFFIX, k=5))


def check_name(r: Resource, obj: Object) -> None:
    """Refuse a name that is not a DNS-1123 subdomain.

    Raises:
        Invalid: names the field, the value and the remedy.
    """
    name = meta(obj).get("name")
    if not name:
        fault = "Required value: name or generateName is required"
    elif not isinstance(name, str) or len(name) > 253 or not _NAME.match(name):
        fault = (
            f'Invalid value: "{name}": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric '
            "characters, '-' or '.', and must start and end with an alphanumeric character"
        )
    else:
        return
    raise invalid(r, str(name or ""), "metadata.name", fault)


def invalid(r: Resource, name: str, field: str, fault: str, reason: str = "FieldValueInvalid") -> Invalid:
    """An Invalid with one cause."""
    cause = StatusCause(reason=reason, message=fault, field=field)
    message = f'{r.kind} "{name}" is invalid: {field}: {fault}'
    return Invalid(message, kind=r.kind, group=r.group, name=name, causes=[cause])


def check_version(r: Resource, name: str, old: Object, new: Object, *, patched: bool) -> None:
    """Optimistic concurrency.

    Raises:
        Conflict: the writer saw another state, or another object of this name.
        Invalid: a custom resource is replaced without saying which state was seen.
    """
    seen, current = meta(new).get("resourceVersion"), meta(old)["resourceVersion"]
    if not seen and not is_core(r) and not patched:
        raise invalid(r, name, "metadata.resourceVersion", "Invalid value: 0: must be specified for an update")
    if seen and seen != current:
        raise Conflict(
            f'Operation cannot be fulfilled on {r.plural} "{name}": the object has been modified; please apply '
            "your changes to the latest version and try again",
            kind=r.plural, group=r.group, name=name,
        )  # fmt: skip
    uid = meta(new).get("uid")
    if uid and uid != meta(old)["uid"]:
        raise Conflict(
            f'Operation cannot be fulfilled on {r.plural} "{name}": Precondition failed: UID in precondition: {uid}, '
            f"UID in object meta: {meta(old)['uid']}",
            kind=r.plural, group=r.group, name=name,
        )  # fmt: skip


def prepare_update(r: Resource, old: Object, new: Object, subresource: str) -> Object:
    """The object that an update leads to: what the server owns, and the other half of spec/status, stay.

    Raises:
        Invalid: a finalizer is added to an object that is being deleted.
    """
    before = old["metadata"]
    if subresource == "status":
        result = dict(old)
        if "status" in new:
            result["status"] = new["status"]
        else:
            result.pop("status", None)
        result["metadata"] = {**before}
        return result
    result = {**new, "metadata": {**new["metadata"]}}
    m = result["metadata"]
    for name in _KEPT:
        if name in before:
            m[name] = before[name]
        else:
            m.pop(name, None)
    m["resourceVersion"] = before["resourceVersion"]
    if "status" in r.subresources:
        if "status" in old:
            result["status"] = old["status"]
        else:
            result.pop("status", None)
    if "deletionTimestamp" in before:
        added = set(m.get("finalizers") or []) - set(before.get("finalizers") or [])
        if added:
            raise invalid(
                r, before["name"], "metadata.finalizers",
                f"Forbidden: no new finalizers can be added if the object is being deleted, found {sorted(added)}",
                "FieldValueForbidden",
            )  # fmt: skip
    if has_generation(r) and not same(_specified(r, result), _specified(r, old)):
        m["generation"] = before.get("generation", 0) + 1
    return result


def _specified(r: Resource, obj: Object) -> Object:
    aside = {"metadata", "status"} if "status" in r.subresources else {"metadata"}
    return {k: v for k, v in obj.items() if k not in aside}


def tidy(obj: Object) -> Object:
    """The object without empty metadata fields, its well-known fields first."""
    m = {k: v for k, v in obj["metadata"].items() if v not in (None, "", [], {})}
    first = {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": m}
    return {**first, **{k: v for k, v in obj.items() if k not in first}}


def same(one: Object, other: Object) -> bool:
    """Whether two objects are the same JSON (`==` alone takes true for 1)."""
    return one == other and msgspec.json.encode(one, order="sorted") == msgspec.json.encode(other, order="sorted")


def grace(r: Resource, obj: Object, asked: int | None) -> int:
    """Seconds that a deleted object stays: only a pod that is bound and not finished has any."""
    if r.kind != "Pod" or not is_core(r):
        return 0
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    if not spec.get("nodeName") or status.get("phase") in ("Succeeded", "Failed"):
        return 0
    if asked is not None:
        return max(asked, 0)
    return int(spec.get("terminationGracePeriodSeconds", 30))
