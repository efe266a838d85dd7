"""What happens to an object on its way into the embedded store: identity, defaults, validation.

On Kubernetes the schema and CEL rules of the CustomResourceDefinitions do the same for heddle's kinds.
"""

import copy
from functools import cache
from typing import Any

from heddle.api import quantity
from heddle.api.core import GPU_RESOURCE
from heddle.api.errors import Invalid
from heddle.api.immutable import FIXED, IMMUTABLE
from heddle.api.meta import Kind
from heddle.api.mig import asked_of, resource_of, unknown
from heddle.api.registry import Resource
from heddle.api.schema import Schema, fill_defaults, kind_schema
from heddle.api.status import StatusCause
from heddle.api.validate import check
from heddle.api.workload import GROUPS_ANNOTATION, USER_ANNOTATION


def admit(
    resource: Resource, old: dict[str, Any] | None, new: dict[str, Any], operation: str, *, here: bool = True
) -> dict[str, Any]:
    """The object to store, or an error that lists every fault.

    Args:
        resource: collection that it goes to.
        old: what is stored now; None on create.
        new: what a client wants stored (decoded JSON); may be changed in place.
        operation: CREATE, UPDATE, or STATUS for a write of the status subresource.
        here: it is for embedded heddle, not for a cluster.

    Raises:
        Invalid: the object breaks its rules.
    """
    new.setdefault("apiVersion", resource.api_version)
    new.setdefault("kind", resource.kind)
    check(resource, new)
    if here:
        _only_on_clusters(resource, new)
        _one_instance(resource, new)
    if resource.own and operation != "STATUS" and resource.type is not None:
        fill_defaults(_schema(resource.type), new)
    if operation == "CREATE":
        _defaults(resource, new)
    elif old is not None:
        _keep_submitter(old, new)
        if operation != "STATUS":
            _immutable(resource, old, new)
    return new


def _only_on_clusters(resource: Resource, new: dict[str, Any]) -> None:
    """A field that nothing here would heed is refused, not ignored."""
    spec = new.get("spec") or {}
    given = [name for name in ONLY_ON_CLUSTERS if spec.get(name)] if resource.kind == "TrainingJob" else []
    if given:
        remedies = {f"spec.{name}": f"{ONLY_ON_CLUSTERS[name]}: leave it out, or use a cluster" for name in given}
        raise Invalid(
            f"TrainingJob {new['metadata'].get('name')!r} is invalid: "
            + ", ".join(f"{field}: {remedy}" for field, remedy in remedies.items()),
            kind=resource.kind,
            group=resource.group,
            name=new["metadata"].get("name", ""),
            causes=[StatusCause(reason="FieldValueForbidden", message=r, field=f) for f, r in remedies.items()],
        )


def _one_instance(resource: Resource, new: dict[str, Any]) -> None:
    """Here heddle itself says which MIG instance a pod gets: one of a profile that it knows, and no other GPU."""
    spec = new.get("spec") or {}
    asked = {}
    if resource.kind == "TrainingJob":
        asked["spec.resourcesPerNode"] = spec.get("resourcesPerNode"), spec.get("gpuMemoryPerNode")
        for at, role in enumerate(spec.get("roles") or ()):
            asked[f"spec.roles[{at}].resourcesPerNode"] = role.get("resourcesPerNode"), role.get("gpuMemoryPerNode")
    elif resource.kind == "Workload":
        for at, one in enumerate(spec.get("podSets") or ()):
            asked[f"spec.podSets[{at}].resources"] = one.get("resources"), one.get("gpuMemory")
    for field, (resources, memory) in asked.items():
        wanted = asked_of(resources or {})
        others = memory is not None or quantity.milli((resources or {}).get(GPU_RESOURCE, 0)) > 0
        remedy = next(filter(None, map(unknown, wanted)), "")
        if not remedy and wanted and (others or list(wanted.values()) != [1000]):
            remedy = "a pod uses one MIG instance and no other GPU; ask for 1 of one profile alone"
        if remedy:
            name = resource_of(next(iter(wanted)))
            raise Invalid(
                f"{resource.kind} {new['metadata'].get('name')!r} is invalid: {field}[{name}]: {remedy}",
                kind=resource.kind,
                group=resource.group,
                name=new["metadata"].get("name", ""),
                causes=[StatusCause(reason="FieldValueInvalid", message=remedy, field=f"{field}[{name}]")],
            )


@cache
def _schema(kind: type[Kind]) -> Schema:
    return kind_schema(kind)


def stamp(obj: dict[str, Any], user: str, groups: tuple[str, ...]) -> None:
    """Record who submits an object, whatever the client wrote there. The server calls it on each create."""
    meta = obj.get("metadata")
    if not isinstance(meta, dict):
        return
    annotations = meta.get("annotations")
    if annotations is None:
        annotations = meta["annotations"] = {}
    if isinstance(annotations, dict):
        annotations[USER_ANNOTATION] = user
        annotations[GROUPS_ANNOTATION] = ",".join(groups)


def _keep_submitter(old: dict[str, Any], new: dict[str, Any]) -> None:
    """Who submitted an object never changes."""
    before = old.get("metadata", {}).get("annotations") or {}
    meta = new["metadata"]
    for name in (USER_ANNOTATION, GROUPS_ANNOTATION):
        if name in before:
            annotations = meta.get("annotations")
            if annotations is None:
                annotations = meta["annotations"] = {}
            annotations[name] = before[name]
        elif isinstance(meta.get("annotations"), dict):
            meta["annotations"].pop(name, None)


def _defaults(resource: Resource, new: dict[str, Any]) -> None:
    match resource.kind:
        case "Pod":
            spec = new.setdefault("spec", {})
            spec.setdefault("restartPolicy", "Always")
            spec.setdefault("terminationGracePeriodSeconds", 30)
            spec.setdefault("schedulerName", "heddle")
            new.setdefault("status", {}).setdefault("phase", "Pending")
        case "Namespace":
            new.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])
            new.setdefault("status", {}).setdefault("phase", "Active")
        case "Secret":
            new.setdefault("type", "Opaque")
        case _:
            pass


_OWN_USER = "embedded heddle runs programs as the user who started it"
ONLY_ON_CLUSTERS = {
    "volumes": "embedded heddle runs programs of this machine, which see its files",
    "serviceAccountName": _OWN_USER,
    "imagePullSecrets": "embedded heddle pulls no images",
    "securityContext": _OWN_USER,
}
"""Fields of a TrainingJob that mean nothing on one machine, and why."""


def _immutable(resource: Resource, old: dict[str, Any], new: dict[str, Any]) -> None:
    if resource.kind not in FIXED or resource.type is None:
        return
    was = {"spec": copy.deepcopy(old.get("spec") or {})}
    fill_defaults(_schema(resource.type), was)  # fields may be younger than the object
    before, after = was["spec"], new.get("spec") or {}
    changed = [name for name in FIXED[resource.kind] if before.get(name) != after.get(name)]
    if changed:
        remedy = f"field {IMMUTABLE}"
        raise Invalid(
            f"{resource.kind} {new['metadata'].get('name')!r} is invalid: "
            + ", ".join(f"spec.{name}: {remedy}" for name in changed),
            kind=resource.kind,
            group=resource.group,
            name=new["metadata"].get("name", ""),
            causes=[StatusCause(reason="FieldValueInvalid", message=remedy, field=f"spec.{n}") for n in changed],
        )
