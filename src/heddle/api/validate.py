"""Every fault of an object at once, each with its field path, the value and the remedy.

msgspec stops at the first fault, so a tolerant walk over the same type information comes first: it reports wrong
types, broken bounds, missing and (in heddle's own kinds) unknown fields. Where an object has the right shape, the
rules of its kind, which compare fields with each other, follow.
"""

import difflib
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec
from msgspec import inspect as mi

from heddle.api import quantity
from heddle.api.company import PodTerm
from heddle.api.core import GPU_PRODUCT_LABEL, GPU_RESOURCE
from heddle.api.errors import Invalid
from heddle.api.license import LICENSE_PREFIX
from heddle.api.meta import Kind, Quantity, Resources
from heddle.api.mig import MIG_PREFIX
from heddle.api.pod import Pod
from heddle.api.queue import GPU_MODEL_PREFIX, Queue
from heddle.api.registry import Resource
from heddle.api.status import StatusCause
from heddle.api.topology import Topology
from heddle.api.trainingjob import JobVolume, TrainingJob, TrainingJobSpec
from heddle.api.workload import NodeAffinity, PodSet, SliceRule, SpreadRule, Workload


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with an object.

    Attributes:
        field: path such as `spec.quota[nvidia.com/gpu]`.
        reason: one of Kubernetes' cause types: FieldValueInvalid, FieldValueRequired, FieldValueNotSupported,
            FieldValueTypeInvalid, FieldValueUnknown (a field that does not exist), FieldValueForbidden.
        value: what was there.
        remedy: what to write instead.
    """

    field: str
    reason: str
    value: Any
    remedy: str

    def __str__(self) -> str:
        if self.reason == "FieldValueRequired":
            return f"{self.field}: required; {self.remedy}"
        if self.reason == "FieldValueUnknown":
            return f"{self.field}: unknown field; {self.remedy}"
        return f"{self.field}: {_show(self.value)} is not valid; {self.remedy}"


def _show(value: Any) -> str:
    text = repr(value) if isinstance(value, str | float | int | bool | None) else msgspec.json.encode(value).decode()
    return text if len(text) <= 80 else text[:77] + "..."


def faults(resource: Resource, obj: Any) -> list[Fault]:
    """All faults of an object (as decoded JSON or YAML) of this resource, in field order."""
    if resource.type is None:
        return []
    if not isinstance(obj, dict):
        return [Fault("(object)", "FieldValueTypeInvalid", obj, "give an object with apiVersion, kind and metadata")]
    found = list(_identity(resource, obj)) + list(_walk(_info(resource.type), obj, "", strict=resource.own))
    if not found and (rules := _RULES.get(resource.type)):
        found = list(rules(msgspec.convert(obj, resource.type)))
    return found


def check(resource: Resource, obj: Any) -> None:
    """Refuse an object with faults.

    Raises:
        Invalid: lists every fault.
    """
    if found := faults(resource, obj):
        name = obj.get("metadata", {}).get("name", "") if isinstance(obj, dict) else ""
        lines = "; ".join(map(str, found)) if len(found) == 1 else "[" + ", ".join(map(str, found)) + "]"
        raise Invalid(
            f"{resource.kind}{'.' + resource.group if resource.group else ''} {name!r} is invalid: {lines}",
            kind=resource.kind,
            group=resource.group,
            name=str(name),
            causes=[StatusCause(reason=f.reason, message=str(f).split(": ", 1)[1], field=f.field) for f in found],
        )


@cache
def _info(type_: type[msgspec.Struct]) -> mi.StructType:
    info = mi.type_info(type_)
    assert isinstance(info, mi.StructType)
    return info


_WHOLE_NUMBER = re.compile(r"[-+]?[0-9]{1,18}")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_LABEL = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")


def _identity(resource: Resource, obj: dict[str, Any]) -> Iterator[Fault]:
    for field, wanted in (("apiVersion", resource.api_version), ("kind", resource.kind)):
        if obj.get(field, wanted) != wanted:
            yield Fault(field, "FieldValueInvalid", obj[field], f"write {wanted}")
    meta = obj.get("metadata")
    if not isinstance(meta, dict):
        if meta is not None:
            return
        meta = {}
    name = meta.get("name")
    if not name and not meta.get("generateName"):
        yield Fault("metadata.name", "FieldValueRequired", name, "give name or generateName")
    elif isinstance(name, str) and name and (len(name) > 253 or not _NAME.fullmatch(name)):
        remedy = "use lower case letters, digits, '-' and '.', 253 at most, beginning and ending with a letter or digit"
        yield Fault("metadata.name", "FieldValueInvalid", name, remedy)
    labels = meta.get("labels")
    for key, value in labels.items() if isinstance(labels, dict) else ():
        if isinstance(value, str) and value and (len(value) > 63 or not _LABEL.fullmatch(value)):
            remedy = "use letters, digits, '-', '_' and '.', 63 at most"
            yield Fault(f"metadata.labels[{key}]", "FieldValueInvalid", value, remedy)


_WORDS: dict[type, str] = {
    mi.StructType: "an object", mi.DictType: "an object", mi.ListType: "a list", mi.StrType: "a string",
    mi.BoolType: "true or false", mi.IntType: "a whole number",
}  # fmt: skip


def _walk(info: mi.Type, value: Any, path: str, *, strict: bool) -> Iterator[Fault]:
    """Faults of a value against a type; goes on past each."""
    match info:
        case mi.Metadata(type=inner):
            yield from _walk(inner, value, path, strict=strict)
        case mi.StructType() if isinstance(value, dict):
            yield from _walk_struct(info, value, path, strict=strict)
        case mi.DictType(value_type=inner) if isinstance(value, dict):
            for key, item in value.items():
                yield from _walk(inner, item, f"{path}[{key}]", strict=strict)
        case mi.ListType(item_type=inner) if isinstance(value, list):
            yield from _length(info, value, path, "entries")
            for i, item in enumerate(value):
                yield from _walk(inner, item, f"{path}[{i}]", strict=strict)
        case mi.StrType() if isinstance(value, str):
            yield from _length(info, value, path, "characters")
            if info.pattern and not re.search(info.pattern, value):
                yield Fault(path, "FieldValueInvalid", value, f"it must match {info.pattern}")
        case mi.BoolType() if isinstance(value, bool):
            pass
        case mi.IntType() if isinstance(value, int) and not isinstance(value, bool):
            if info.ge is not None and value < info.ge:
                yield Fault(path, "FieldValueInvalid", value, f"give {info.ge} or more")
            elif info.le is not None and value > info.le:
                yield Fault(path, "FieldValueInvalid", value, f"give {info.le} or less")
        case mi.LiteralType(values=values):
            if value not in values:
                choice = ", ".join(str(v) for v in values if v != "")
                yield Fault(path, "FieldValueNotSupported", value, f"choose one of {choice}")
        case mi.UnionType(types=types):
            yield from _walk_union(types, value, path, strict=strict)
        case mi.AnyType():
            pass
        case _:
            yield Fault(path or "(object)", "FieldValueTypeInvalid", value, f"give {_WORDS.get(type(info), 'a value')}")


def _walk_struct(info: mi.StructType, value: dict[str, Any], path: str, *, strict: bool) -> Iterator[Fault]:
    known = {f.encode_name: f for f in info.fields}
    for name, field in known.items():
        where = f"{path}.{name}" if path else name
        if name in value and not (value[name] is None and not field.required):
            # the server's own fields in metadata need no second opinion
            yield from _walk(field.type, value[name], where, strict=strict and name != "managedFields")
        elif field.required:
            yield Fault(where, "FieldValueRequired", None, f"give {_words_of(field.type)}")
    if strict and path != "metadata":
        for name in value:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                remedy = f"did you mean {close[0]}?" if close else f"known fields: {', '.join(sorted(known))}"
                yield Fault(f"{path}.{name}" if path else name, "FieldValueUnknown", value[name], remedy)


def _walk_union(types: tuple[mi.Type, ...], value: Any, path: str, *, strict: bool) -> Iterator[Fault]:
    concrete = [t for t in types if not isinstance(t, mi.NoneType)]
    if value is None and len(concrete) < len(types):
        return
    if {type(t) for t in concrete} == {mi.IntType, mi.StrType}:
        yield from _quantity(value, path)
    else:
        yield from _walk(concrete[0], value, path, strict=strict)


def _quantity(value: Any, path: str) -> Iterator[Fault]:
    if isinstance(value, float) and not math.isfinite(value):
        yield Fault(path, "FieldValueInvalid", value, "give a finite number")
        return
    if isinstance(value, float):
        yield Fault(path, "FieldValueTypeInvalid", value, f'write it as "{round(value * 1000)}m"')
        return
    try:
        if quantity.milli(value) < 0:
            yield Fault(path, "FieldValueInvalid", value, "give 0 or more")
    except (ValueError, ArithmeticError, TypeError):
        yield Fault(path, "FieldValueInvalid", value, 'give a quantity such as 4, "500m" or "16Gi"')


def _length(info: mi.ListType | mi.StrType, value: Any, path: str, what: str) -> Iterator[Fault]:
    if info.min_length and len(value) < info.min_length:
        if not value:
            yield Fault(path, "FieldValueRequired", value, "it must not be empty")
        else:
            yield Fault(path, "FieldValueInvalid", value, f"give at least {info.min_length} {what}")
    elif info.max_length is not None and len(value) > info.max_length:
        yield Fault(path, "FieldValueInvalid", value, f"give at most {info.max_length} {what}")


def _words_of(info: mi.Type) -> str:
    while isinstance(info, mi.Metadata):
        info = info.type
    return _WORDS.get(type(info), "a value")


# --- rules between fields of one object -------------------------------------------------------------------------


def _licences(amounts: Resources, path: str) -> Iterator[Fault]:
    for name, value in amounts.items():
        if name == LICENSE_PREFIX:
            yield Fault(f"{path}[{name}]", "FieldValueInvalid", value, f"name a License: {LICENSE_PREFIX}matlab")
        elif name.startswith(LICENSE_PREFIX) and quantity.milli(value) % 1000:
            yield Fault(f"{path}[{name}]", "FieldValueInvalid", value, "give a whole number of licences")


def _gpu_share(resources: Resources, path: str) -> Iterator[Fault]:
    yield from _licences(resources, path)
    for name, value in resources.items():
        if name.startswith(MIG_PREFIX) and quantity.milli(value) % 1000:
            yield Fault(f"{path}[{name}]", "FieldValueInvalid", value, "give a whole number of MIG instances")
    for name in resources:
        if name.startswith(GPU_MODEL_PREFIX):
            remedy = f"ask for {GPU_RESOURCE} and pin the model with nodeSelector {GPU_PRODUCT_LABEL}"
            yield Fault(f"{path}[{name}]", "FieldValueForbidden", resources[name], remedy)
    if (asked := resources.get(GPU_RESOURCE)) is not None:
        thousandths = quantity.milli(asked)
        if thousandths > 1000 and thousandths % 1000:
            remedy = "give a share of one GPU below 1, or a whole number of GPUs"
            yield Fault(f"{path}[{GPU_RESOURCE}]", "FieldValueInvalid", asked, remedy)


def _gpu_memory(asked: Quantity | None, resources: Resources, path: str) -> Iterator[Fault]:
    if asked is None:
        return
    if quantity.whole(asked) < 2**20:
        yield Fault(path, "FieldValueInvalid", asked, 'give 1Mi or more, for instance "20Gi"')
    if resources.get(GPU_RESOURCE) is not None:
        remedy = f"give this or {GPU_RESOURCE}, not both: it is a share of one GPU by itself"
        yield Fault(path, "FieldValueForbidden", asked, remedy)


def _gpu_models(models: list[str], *, gpus: bool, selector: dict[str, str], path: str) -> Iterator[Fault]:
    for i, model in enumerate(models):
        if not _LABEL.fullmatch(model) or len(model) > 63 or model in models[:i]:
            remedy = "name each model once, as the node label does: NVIDIA-H100-80GB-HBM3"
            yield Fault(f"{path}.gpuModels[{i}]", "FieldValueInvalid", model, remedy)
    if models and not gpus:
        remedy = f"ask for GPUs too, with {GPU_RESOURCE} or by memory"
        yield Fault(f"{path}.gpuModels", "FieldValueForbidden", models, remedy)
    if models and GPU_PRODUCT_LABEL in selector:
        remedy = "give gpuModels or this label, not both"
        where = f"{path}.nodeSelector[{GPU_PRODUCT_LABEL}]"
        yield Fault(where, "FieldValueForbidden", selector[GPU_PRODUCT_LABEL], remedy)


_MOST_MODELS = 16


def _gpu_speeds(
    speeds: Resources, models: list[str], *, gpus: bool, selector: dict[str, str], path: str
) -> Iterator[Fault]:
    if len(speeds) > _MOST_MODELS:
        yield Fault(f"{path}.gpuSpeeds", "FieldValueInvalid", len(speeds), f"name at most {_MOST_MODELS} models")
    for model, speed in speeds.items():
        where = f"{path}.gpuSpeeds[{model}]"
        if not _LABEL.fullmatch(model) or len(model) > 63:
            yield Fault(where, "FieldValueInvalid", speed, "name the model as the node label does")
        if not 1 <= quantity.milli(speed) <= 1_000_000:
            yield Fault(where, "FieldValueInvalid", speed, 'give a speed from "0.001" to "1000"; 1 = as walltimes say')
        if models and model not in models:
            yield Fault(where, "FieldValueInvalid", speed, f"name one of gpuModels: {', '.join(models)}")
    if speeds and not gpus:
        remedy = f"ask for GPUs too, with {GPU_RESOURCE} or by memory"
        yield Fault(f"{path}.gpuSpeeds", "FieldValueForbidden", speeds, remedy)
    if speeds and not models and GPU_PRODUCT_LABEL in selector:
        remedy = "give gpuSpeeds or this label, not both"
        where = f"{path}.nodeSelector[{GPU_PRODUCT_LABEL}]"
        yield Fault(where, "FieldValueForbidden", selector[GPU_PRODUCT_LABEL], remedy)


def _asks_gpus(resources: Resources, memory: Quantity | None) -> bool:
    return memory is not None or quantity.milli(resources.get(GPU_RESOURCE, 0)) > 0


def _queue(queue: Queue) -> Iterator[Fault]:
    spec = queue.spec
    for field, amounts in (("quota", spec.quota), ("limit", spec.limit), ("borrowingLimit", spec.borrowing_limit),
                           ("lendingLimit", spec.lending_limit), ("userLimit", spec.user_limit)):  # fmt: skip
        yield from _licences(amounts, f"spec.{field}")
        for resource, value in amounts.items():
            if resource in (GPU_PRODUCT_LABEL, GPU_MODEL_PREFIX):
                remedy = f"name a model as the node label does: {GPU_MODEL_PREFIX}NVIDIA-H100-80GB-HBM3"
                yield Fault(f"spec.{field}[{resource}]", "FieldValueInvalid", value, remedy)
    if spec.parent and spec.parent == queue.metadata.name:
        yield Fault("spec.parent", "FieldValueInvalid", spec.parent, "a queue is not its own parent; name another")
    for resource, limit in spec.limit.items():
        quota = spec.quota.get(resource)
        if quota is not None and quantity.milli(quota) > quantity.milli(limit):
            remedy = f"quota is over the limit of {limit}; lower quota or raise limit"
            yield Fault(f"spec.quota[{resource}]", "FieldValueInvalid", quota, remedy)
    for resource, value in spec.borrowing_limit.items():
        if resource not in spec.quota and resource != GPU_RESOURCE:
            remedy = f"give a quota of {resource} too: nothing is borrowed where nothing is owed"
            yield Fault(f"spec.borrowingLimit[{resource}]", "FieldValueInvalid", value, remedy)
    for resource, value in spec.lending_limit.items():
        quota = spec.quota.get(resource)
        if quota is None or quantity.milli(value) > quantity.milli(quota):
            remedy = f"give at most the quota of {resource} ({'none is set' if quota is None else quota})"
            yield Fault(f"spec.lendingLimit[{resource}]", "FieldValueInvalid", value, remedy)


def _topology(topology: Topology) -> Iterator[Fault]:
    seen: set[str] = set()
    for i, level in enumerate(topology.spec.levels):
        if level.node_label in seen:
            remedy = "each level needs a label of its own"
            yield Fault(f"spec.levels[{i}].nodeLabel", "FieldValueInvalid", level.node_label, remedy)
        seen.add(level.node_label)


def _node_affinity(wish: NodeAffinity, path: str) -> Iterator[Fault]:
    terms = [(f"{path}.required[{i}]", term) for i, term in enumerate(wish.required)]
    terms += [(f"{path}.preferred[{i}].preference", wanted.preference) for i, wanted in enumerate(wish.preferred)]
    for where, term in terms:
        for i, match in enumerate(term.match_expressions):
            field, values = f"{where}.matchExpressions[{i}].values", match.values
            if match.operator in ("Gt", "Lt"):
                if len(values) != 1 or not _WHOLE_NUMBER.fullmatch(values[0]):
                    yield Fault(field, "FieldValueInvalid", values, f"{match.operator} takes one whole number")
            elif match.operator in ("In", "NotIn") and not values:
                yield Fault(field, "FieldValueRequired", values, f"{match.operator} takes at least one value")
            elif match.operator in ("Exists", "DoesNotExist") and values:
                yield Fault(field, "FieldValueInvalid", values, f"{match.operator} takes no values; leave them out")


def _company(terms: list[PodTerm], path: str) -> Iterator[Fault]:
    for i, term in enumerate(terms):
        for name, selector in (("labelSelector", term.label_selector), ("namespaceSelector", term.namespace_selector)):
            for j, match in enumerate(selector.match_expressions if selector else ()):
                where = f"{path}.required[{i}].{name}.matchExpressions[{j}].values"
                if match.operator in ("In", "NotIn") and not match.values:
                    yield Fault(where, "FieldValueRequired", [], f"{match.operator} takes at least one value")
                elif match.operator in ("Exists", "DoesNotExist") and match.values:
                    remedy = f"{match.operator} takes no values; leave them out"
                    yield Fault(where, "FieldValueInvalid", match.values, remedy)


def _pod_labels(labels: dict[str, str]) -> Iterator[Fault]:
    for key, value in labels.items():
        if key.startswith("heddle.dev/"):
            yield Fault(
                f"spec.podLabels[{key}]", "FieldValueForbidden", value, "labels heddle.dev/... are heddle's own"
            )
        if value and (len(value) > 63 or not _LABEL.fullmatch(value)):
            remedy = "use letters, digits, '-', '_' and '.', 63 at most"
            yield Fault(f"spec.podLabels[{key}]", "FieldValueInvalid", value, remedy)


def _arrangement(
    spread: SpreadRule | None, slices: SliceRule | None, count: int, minimum: int, path: str
) -> Iterator[Fault]:
    if spread and slices:
        yield Fault(f"{path}.slices", "FieldValueForbidden", slices.level, "give slices or spread, not both")
    if spread and spread.max_per_domain is None and spread.max_skew is None:
        yield Fault(f"{path}.spread", "FieldValueRequired", spread.level, "give maxPerDomain, maxSkew or both")
    if slices and (count % slices.size or minimum % slices.size):
        remedy = f"{count} pods (at least {minimum}) are not whole slices; give a divisor of both"
        yield Fault(f"{path}.slices.size", "FieldValueInvalid", slices.size, remedy)


def _elastic(step: int, resizable: bool, elastic: int, path: str, name: str, what: str) -> Iterator[Fault]:
    """What only means something where pods beyond the minimum are asked for."""
    if elastic < 0:
        return
    if step > 1 and (not elastic or elastic % step):
        remedy = (
            f"give a divisor of {what} ({elastic})" if elastic else f"{what} is 0: nothing is elastic; leave it out"
        )
        yield Fault(f"{path}.{name}", "FieldValueInvalid", step, remedy)
    if not resizable and not elastic:
        yield Fault(f"{path}.resizable", "FieldValueInvalid", resizable, f"{what} is 0: it never resizes; leave it out")


def _workload(workload: Workload) -> Iterator[Fault]:
    seen: set[str] = set()
    for i, pod_set in enumerate(workload.spec.pod_sets):
        where = f"spec.podSets[{i}]"
        if pod_set.name in seen:
            yield Fault(f"{where}.name", "FieldValueInvalid", pod_set.name, "each pod set needs a name of its own")
        seen.add(pod_set.name)
        if pod_set.minimum > pod_set.count:
            remedy = f"give at most count ({pod_set.count})"
            yield Fault(f"{where}.minCount", "FieldValueInvalid", pod_set.min_count, remedy)
        elastic = pod_set.count - pod_set.minimum
        yield from _elastic(pod_set.step, pod_set.resizable, elastic, where, "step", "count - minCount")
        yield from _gpu_share(pod_set.resources, f"{where}.resources")
        yield from _gpu_memory(pod_set.gpu_memory, pod_set.resources, f"{where}.gpuMemory")
        gpus = _asks_gpus(pod_set.resources, pod_set.gpu_memory)
        selector = pod_set.node_selector
        yield from _gpu_models(pod_set.gpu_models, gpus=gpus, selector=selector, path=where)
        yield from _gpu_speeds(pod_set.gpu_speeds, pod_set.gpu_models, gpus=gpus, selector=selector, path=where)
        yield from _node_affinity(pod_set.node_affinity, f"{where}.nodeAffinity")
        yield from _company(pod_set.pod_affinity.required, f"{where}.podAffinity")
        yield from _company(pod_set.pod_anti_affinity.required, f"{where}.podAntiAffinity")
        yield from _arrangement(pod_set.spread, pod_set.slices, pod_set.count, pod_set.minimum, where)

    yield from _order(workload.spec.pod_sets)
    groups = len({pod_set.group for pod_set in workload.spec.pod_sets if pod_set.group})
    least = workload.spec.min_groups
    if least is not None and least > groups:
        remedy = f"give at most {groups}: so many groups its pod sets name" if groups else "name groups in podSets"
        yield Fault("spec.minGroups", "FieldValueInvalid", least, remedy)


def _order(pod_sets: list[PodSet]) -> Iterator[Fault]:
    by_name = {pod_set.name: pod_set for pod_set in pod_sets}
    for i, pod_set in enumerate(pod_sets):
        for j, name in enumerate(pod_set.after):
            field = f"spec.podSets[{i}].after[{j}]"
            if name not in by_name:
                yield Fault(field, "FieldValueInvalid", name, f"name one of the pod sets {', '.join(by_name)}")
            elif by_name[name].group not in ("", pod_set.group):
                yield Fault(field, "FieldValueInvalid", name, "name a pod set of the same group, or of none")
        seen, due = set[str](), list(pod_set.after)
        while due:
            name = due.pop()
            if name not in seen and name in by_name:
                seen.add(name)
                due += by_name[name].after
        if pod_set.name in seen:
            remedy = "no pod set may wait for itself; leave one of them out"
            yield Fault(f"spec.podSets[{i}].after", "FieldValueInvalid", pod_set.after, remedy)


def _volumes(volumes: list[JobVolume]) -> Iterator[Fault]:
    for i, volume in enumerate(volumes):
        where = f"spec.volumes[{i}]"
        if not volume.mount_path.startswith("/") or volume.mount_path in [v.mount_path for v in volumes[:i]]:
            remedy = "give each volume an absolute path of its own"
            yield Fault(f"{where}.mountPath", "FieldValueInvalid", volume.mount_path, remedy)
        sources = {"claim": volume.claim, "hostPath": volume.host_path, "configMap": volume.config_map,
                   "memory": volume.memory}  # fmt: skip
        given = [name for name, value in sources.items() if value not in ("", None)]
        if len(given) != 1:
            remedy = "give exactly one of claim, hostPath, configMap and memory"
            yield Fault(where, "FieldValueInvalid", " and ".join(given), remedy)
        if volume.host_path and not volume.host_path.startswith("/"):
            yield Fault(f"{where}.hostPath", "FieldValueInvalid", volume.host_path, "give an absolute path")
        if volume.files and not volume.config_map:
            yield Fault(f"{where}.files", "FieldValueForbidden", len(volume.files), "only a configMap has files")
        paths = [
            ("subPath", volume.sub_path),
            *((f"files[{n}].path", file.path) for n, file in enumerate(volume.files)),
        ]
        for field, path in paths:
            if path.startswith("/") or ".." in path.split("/"):
                yield Fault(f"{where}.{field}", "FieldValueInvalid", path, "give a path below the volume, without ..")


def _identity_of(spec: TrainingJobSpec) -> Iterator[Fault]:
    for i, source in enumerate(spec.env_from):
        named = [ref.name for ref in (source.config_map_ref, source.secret_ref) if ref is not None]
        if len(named) != 1 or not named[0]:
            remedy = "give exactly one of configMapRef and secretRef, with a name"
            yield Fault(f"spec.envFrom[{i}]", "FieldValueInvalid", " and ".join(named), remedy)
    for i, reference in enumerate(spec.image_pull_secrets):
        if not reference.name:
            yield Fault(f"spec.imagePullSecrets[{i}].name", "FieldValueRequired", "", "name a Secret of the namespace")
    user = spec.security_context
    if user is not None and user.run_as_non_root and user.run_as_user == 0:
        remedy = "0 is root; give another user, or leave out runAsNonRoot"
        yield Fault("spec.securityContext.runAsUser", "FieldValueInvalid", 0, remedy)


_MOST_PODS = 100_000


def _training_job(job: TrainingJob) -> Iterator[Fault]:
    spec = job.spec
    yield from _volumes(spec.volumes)
    yield from _identity_of(spec)
    if spec.minimum > spec.nodes:
        yield Fault("spec.minNodes", "FieldValueInvalid", spec.min_nodes, f"give at most nodes ({spec.nodes})")
    elastic = spec.nodes - spec.minimum
    yield from _elastic(spec.node_step, spec.resizable, elastic, "spec", "nodeStep", "nodes - minNodes")
    if spec.groups > 1 and elastic > 0:
        remedy = "groups come and go whole: leave it out, or give one group"
        yield Fault("spec.minNodes", "FieldValueForbidden", spec.min_nodes, remedy)
    if spec.min_groups is not None and spec.min_groups > spec.groups:
        yield Fault("spec.minGroups", "FieldValueInvalid", spec.min_groups, f"give at most groups ({spec.groups})")
    if spec.size > _MOST_PODS:
        remedy = f"give at most {_MOST_PODS // spec.nodes}: a job has at most {_MOST_PODS} nodes in all"
        yield Fault("spec.groups", "FieldValueInvalid", spec.groups, remedy)
    if len(job.metadata.name) > 50:
        remedy = "use at most 50 characters: pods are named after the job"
        yield Fault("metadata.name", "FieldValueInvalid", job.metadata.name, remedy)
    yield from _gpu_share(spec.resources_per_node, "spec.resourcesPerNode")
    yield from _gpu_memory(spec.gpu_memory_per_node, spec.resources_per_node, "spec.gpuMemoryPerNode")
    gpus = _asks_gpus(spec.resources_per_node, spec.gpu_memory_per_node)
    yield from _gpu_models(spec.gpu_models, gpus=gpus, selector=spec.node_selector, path="spec")
    yield from _gpu_speeds(spec.gpu_speeds, spec.gpu_models, gpus=gpus, selector=spec.node_selector, path="spec")
    yield from _node_affinity(spec.node_affinity, "spec.nodeAffinity")
    yield from _company(spec.pod_affinity.required, "spec.podAffinity")
    yield from _company(spec.pod_anti_affinity.required, "spec.podAntiAffinity")
    yield from _pod_labels(spec.pod_labels)
    yield from _arrangement(spec.spread, spec.slices, spec.nodes, spec.minimum, "spec")


def _pod(pod: Pod) -> Iterator[Fault]:
    if not pod.spec.containers:
        yield Fault("spec.containers", "FieldValueRequired", None, "give at least one container")


_RULES: dict[type[Kind], Callable[[Any], Iterator[Fault]]] = {
    Queue: _queue,
    Topology: _topology,
    Workload: _workload,
    TrainingJob: _training_job,
    Pod: _pod,
}
