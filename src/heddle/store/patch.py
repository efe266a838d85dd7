"""The three patches of the Kubernetes dialect, applied to decoded JSON.

Merge patch is RFC 7386, JSON patch RFC 6902, strategic merge patch as in the Kubernetes API conventions: lists of
the core kinds listed below merge by a key, others are replaced.
"""

import copy
from typing import Any

import jsonpatch

from heddle.api.errors import BadRequest, Invalid, UnsupportedMediaType
from heddle.api.registry import Resource
from heddle.store.port import Object, PatchType

MERGE_KEYS: dict[str, str] = {
    "containers": "name",
    "initContainers": "name",
    "ephemeralContainers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "ports": "containerPort",
    "conditions": "type",
    "ownerReferences": "uid",
    "addresses": "type",
    "imagePullSecrets": "name",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
    "resourceClaims": "name",
    "taints": "key",
}
"""Lists that merge, by field name, and the field that tells their items apart (patchMergeKey upstream)."""

PRIMITIVE_SETS = frozenset({"finalizers"})
"""Lists of plain values that merge as sets (patchStrategy=merge without a key upstream)."""


def apply(r: Resource, obj: Object, patch: Any, type_: PatchType) -> Object:
    """The object with a patch applied; `obj` itself stays as it is.

    Raises:
        BadRequest: the patch is not of the shape that its type asks for.
        Invalid: a JSON patch does not apply.
        UnsupportedMediaType: a strategic merge patch of a kind that is not Kubernetes' own.
    """
    if type_ is PatchType.JSON:
        return _json(r, obj, patch)
    if not isinstance(patch, dict):
        raise BadRequest(f"a {type_.value} body is a JSON object, not {type(patch).__name__}")
    if type_ is PatchType.MERGE:
        merged: Object = merge(obj, patch)
        return merged
    if not is_core(r):
        raise UnsupportedMediaType(
            f"{r.kind} takes no strategic merge patch: the body must be {PatchType.MERGE.value} "
            f"or {PatchType.JSON.value}"
        )
    return strategic(obj, patch)


def is_core(r: Resource) -> bool:
    """Whether Kubernetes itself serves the kind (and not through a custom resource definition)."""
    return "." not in r.group or r.group.endswith(".k8s.io")


def merge(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


def _json(r: Resource, obj: Object, patch: Any) -> Object:
    if not isinstance(patch, list):
        raise BadRequest(f"a {PatchType.JSON.value} body is a list of operations, not {type(patch).__name__}")
    try:
        result = jsonpatch.apply_patch(obj, patch, in_place=False)
    except jsonpatch.InvalidJsonPatch as error:
        raise BadRequest(f"not a JSON patch: {error}") from error
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException, TypeError) as error:
        raise Invalid(f"the patch does not apply to {r.plural}: {error}", kind=r.kind) from error
    if not isinstance(result, dict):
        raise Invalid("the patched document is not an object", kind=r.kind)
    return result


def strategic(target: Object, patch: Object) -> Object:
    """Strategic merge, with the directives $patch, $retainKeys, $deleteFromPrimitiveList and $setElementOrder."""
    directive = patch.get("$patch")
    if directive == "replace":
        return {k: copy.deepcopy(v) for k, v in patch.items() if k != "$patch"}
    if directive == "delete":
        return {}
    result = dict(target)
    retained = patch.get("$retainKeys")
    if isinstance(retained, list):
        result = {k: v for k, v in result.items() if k in retained}
    for key, value in patch.items():
        if key.startswith("$deleteFromPrimitiveList/"):
            field = key.split("/", 1)[1]
            result[field] = [v for v in result.get(field) or [] if v not in value]
        elif key.startswith("$"):
            continue
        elif value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            held = result.get(key)
            result[key] = strategic(held if isinstance(held, dict) else {}, value)
        elif isinstance(value, list):
            result[key] = _lists(key, result.get(key) or [], value, patch.get(f"$setElementOrder/{key}"))
        else:
            result[key] = value
    return result


def _lists(field: str, old: list[Any], new: list[Any], order: list[Any] | None) -> list[Any]:
    if any(isinstance(item, dict) and item.get("$patch") == "replace" for item in new):
        return [copy.deepcopy(i) for i in new if not (isinstance(i, dict) and "$patch" in i)]
    if field in PRIMITIVE_SETS:
        return [*old, *(v for v in new if v not in old)]
    key = MERGE_KEYS.get(field)
    if key is None or not all(isinstance(i, dict) for i in [*old, *new]):
        return copy.deepcopy(new)
    merged = list(old)
    for item in new:
        if key not in item:
            raise BadRequest(f"an item of {field} in a strategic merge patch needs its merge key {key!r}")
        at = next((i for i, held in enumerate(merged) if held.get(key) == item[key]), None)
        if item.get("$patch") == "delete":
            if at is not None:
                del merged[at]
        elif at is None:
            merged.append(strategic({}, item))
        else:
            merged[at] = strategic(merged[at], item)
    if order:
        places = {_hashable(i.get(key)): n for n, i in enumerate(order) if isinstance(i, dict)}
        merged.sort(key=lambda i: places.get(_hashable(i.get(key)), len(places)))
    return merged


def _hashable(value: Any) -> str:
    return str(value)
