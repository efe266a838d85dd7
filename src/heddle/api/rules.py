"""Rules between fields of one object, kind by kind: what its schema alone cannot say."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from heddle.api import quantity
from heddle.api.company import PodTerm
from heddle.api.core import GPU_PRODUCT_LABEL, GPU_RESOURCE
from heddle.api.fault import Fault
from heddle.api.license import LICENSE_PREFIX
from heddle.api.meta import Kind, Quantity, Resources
from heddle.api.mig import MIG_PREFIX, asked_of, profile_of, unknown, well_formed
from heddle.api.pod import Pod
from heddle.api.queue import GPU_MODEL_PREFIX, HUGEPAGES, OWN_RESOURCES, RESOURCE_REMEDY, Queue
from heddle.api.topology import Topology
from heddle.api.trainingjob import JobVolume, NodeSet, TrainingJob, TrainingJobSpec
from heddle.api.workload import NodeAffinity, PodSet, SliceRule, SpreadRule, Workload

_WHOLE_NUMBER = re.compile(r"[-+]?[0-9]{1,18}")
LABEL = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
"""A label's value that is not empty."""


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
        if name.startswith(MIG_PREFIX) and not well_formed(profile := profile_of(name)):
            yield Fault(f"{path}[{name}]", "FieldValueInvalid", profile, unknown(profile))
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
        if not LABEL.fullmatch(model) or len(model) > 63 or model in models[:i]:
            remedy = "name each model once, as the node label does: NVIDIA-H100-80GB-HBM3"
            yield Fault(f"{path}.gpuModels[{i}]", "FieldValueInvalid", model, remedy)
    if models and not gpus:
        remedy = f"ask for GPUs too, with {GPU_RESOURCE}, by memory, or as a MIG instance"
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
        if not LABEL.fullmatch(model) or len(model) > 63:
            yield Fault(where, "FieldValueInvalid", speed, "name the model as the node label does")
        if not 1 <= quantity.milli(speed) <= 1_000_000:
            yield Fault(where, "FieldValueInvalid", speed, 'give a speed from "0.001" to "1000"; 1 = as walltimes say')
        if models and model not in models:
            yield Fault(where, "FieldValueInvalid", speed, f"name one of gpuModels: {', '.join(models)}")
    if speeds and not gpus:
        remedy = f"ask for GPUs too, with {GPU_RESOURCE}, by memory, or as a MIG instance"
        yield Fault(f"{path}.gpuSpeeds", "FieldValueForbidden", speeds, remedy)
    if speeds and not models and GPU_PRODUCT_LABEL in selector:
        remedy = "give gpuSpeeds or this label, not both"
        where = f"{path}.nodeSelector[{GPU_PRODUCT_LABEL}]"
        yield Fault(where, "FieldValueForbidden", selector[GPU_PRODUCT_LABEL], remedy)


def _asks_gpus(resources: Resources, memory: Quantity | None) -> bool:
    return memory is not None or quantity.milli(resources.get(GPU_RESOURCE, 0)) > 0 or bool(asked_of(resources))


def _queue(queue: Queue) -> Iterator[Fault]:
    spec = queue.spec
    for field, amounts in (("quota", spec.quota), ("limit", spec.limit), ("borrowingLimit", spec.borrowing_limit),
                           ("lendingLimit", spec.lending_limit), ("userLimit", spec.user_limit)):  # fmt: skip
        yield from _licences(amounts, f"spec.{field}")
        for resource, value in amounts.items():
            if resource in (GPU_PRODUCT_LABEL, GPU_MODEL_PREFIX):
                remedy = f"name a model as the node label does: {GPU_MODEL_PREFIX}NVIDIA-H100-80GB-HBM3"
                yield Fault(f"spec.{field}[{resource}]", "FieldValueInvalid", value, remedy)
            elif "/" not in resource and resource not in OWN_RESOURCES and not resource.startswith(HUGEPAGES):
                yield Fault(f"spec.{field}[{resource}]", "FieldValueInvalid", value, RESOURCE_REMEDY)
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
        if value and (len(value) > 63 or not LABEL.fullmatch(value)):
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


@dataclass(frozen=True, slots=True)
class _Words:
    """How a kind calls what it says of a set of alike pods."""

    resources: str
    memory: str
    count: str
    least: str
    step: str


_OF_POD_SETS = _Words("resources", "gpuMemory", "count", "minCount", "step")
_OF_NODES = _Words("resourcesPerNode", "gpuMemoryPerNode", "nodes", "minNodes", "nodeStep")


def _alike(of: PodSet | NodeSet, path: str) -> Iterator[Fault]:
    """What holds of a set of alike pods, be it one of a Workload's, a TrainingJob's nodes, or a role's."""
    if isinstance(of, PodSet):
        words, count, least, step = _OF_POD_SETS, of.count, of.min_count, of.step
        resources, memory = of.resources, of.gpu_memory
    else:
        words, count, least, step = _OF_NODES, of.nodes, of.min_nodes, of.node_step
        resources, memory = of.resources_per_node, of.gpu_memory_per_node
    if of.minimum > count:
        yield Fault(f"{path}.{words.least}", "FieldValueInvalid", least, f"give at most {words.count} ({count})")
    elastic = f"{words.count} - {words.least}"
    yield from _elastic(step, of.resizable, count - of.minimum, path, words.step, elastic)
    yield from _gpu_share(resources, f"{path}.{words.resources}")
    yield from _gpu_memory(memory, resources, f"{path}.{words.memory}")
    gpus = _asks_gpus(resources, memory)
    yield from _gpu_models(of.gpu_models, gpus=gpus, selector=of.node_selector, path=path)
    yield from _gpu_speeds(of.gpu_speeds, of.gpu_models, gpus=gpus, selector=of.node_selector, path=path)
    yield from _node_affinity(of.node_affinity, f"{path}.nodeAffinity")
    yield from _company(of.pod_affinity.required, f"{path}.podAffinity")
    yield from _company(of.pod_anti_affinity.required, f"{path}.podAntiAffinity")
    yield from _arrangement(of.spread, of.slices, count, of.minimum, path)


def _workload(workload: Workload) -> Iterator[Fault]:
    seen: set[str] = set()
    for i, pod_set in enumerate(workload.spec.pod_sets):
        where = f"spec.podSets[{i}]"
        if pod_set.name in seen:
            yield Fault(f"{where}.name", "FieldValueInvalid", pod_set.name, "each pod set needs a name of its own")
        seen.add(pod_set.name)
        yield from _alike(pod_set, where)

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
LONGEST_NAMES = 55
"""Of a job and one of its roles together: a pod's name, which is its host name too, has at most 63 characters."""


def _training_job(job: TrainingJob) -> Iterator[Fault]:
    spec = job.spec
    yield from _volumes(spec.volumes)
    yield from _identity_of(spec)
    if spec.roles:
        yield from _roles(job)
    else:
        yield from _alike_nodes(spec)
    if spec.size > _MOST_PODS:
        field = "roles" if spec.roles else "groups"
        remedy = f"a job has at most {_MOST_PODS} nodes in all"
        yield Fault(f"spec.{field}", "FieldValueInvalid", spec.size, remedy)
    if len(job.metadata.name) > 50:
        remedy = "use at most 50 characters: pods are named after the job"
        yield Fault("metadata.name", "FieldValueInvalid", job.metadata.name, remedy)
    yield from _pod_labels(spec.pod_labels)


def _alike_nodes(spec: TrainingJobSpec) -> Iterator[Fault]:
    if not spec.command:
        yield Fault("spec.command", "FieldValueRequired", spec.command, "it must not be empty, but where roles have it")
    yield from _alike(spec, "spec")
    if spec.groups > 1 and spec.minimum < spec.nodes:
        remedy = "groups come and go whole: leave it out, or give one group"
        yield Fault("spec.minNodes", "FieldValueForbidden", spec.min_nodes, remedy)
    if spec.min_groups is not None and spec.min_groups > spec.groups:
        yield Fault("spec.minGroups", "FieldValueInvalid", spec.min_groups, f"give at most groups ({spec.groups})")
    if spec.success_policy is not None:
        remedy = "only where there are roles: all nodes decide; leave it out"
        yield Fault("spec.successPolicy", "FieldValueForbidden", spec.success_policy, remedy)


def _roles(job: TrainingJob) -> Iterator[Fault]:
    spec, names = job.spec, [role.name for role in job.spec.roles]
    for field in msgspec.structs.fields(NodeSet):
        said = getattr(spec, field.name)
        if field.encode_name not in SHARED_BY_ROLES and said != _default(field):
            remedy = "say it in each of roles, or leave out roles"
            yield Fault(f"spec.{field.encode_name}", "FieldValueForbidden", said, remedy)
    for name, given, none in (("groups", spec.groups, 1), ("minGroups", spec.min_groups, None)):
        if given != none:
            remedy = "groups are of nodes that are all alike: leave it out, or leave out roles"
            yield Fault(f"spec.{name}", "FieldValueForbidden", given, remedy)
    for i, role in enumerate(spec.roles):
        where = f"spec.roles[{i}]"
        if role.name in names[:i]:
            yield Fault(f"{where}.name", "FieldValueInvalid", role.name, "each role needs a name of its own")
        elif len(job.metadata.name) + len(role.name) > LONGEST_NAMES:
            remedy = f"use at most {LONGEST_NAMES} characters in the names of job and role together: pods have both"
            yield Fault(f"{where}.name", "FieldValueInvalid", role.name, remedy)
        if not role.command:
            yield Fault(f"{where}.command", "FieldValueRequired", role.command, "it must not be empty")
        for j, name in enumerate(role.after):
            if name not in names[:i]:
                known = f"one of {', '.join(names[:i])}" if i else "none, as it is the first"
                remedy = f"name roles that are listed before it: {known}"
                yield Fault(f"{where}.after[{j}]", "FieldValueInvalid", name, remedy)
        yield from _alike(role, where)
    for j, name in enumerate(spec.success_policy.roles if spec.success_policy else ()):
        if name not in names:
            remedy = f"name one of the roles {', '.join(names)}"
            yield Fault(f"spec.successPolicy.roles[{j}]", "FieldValueInvalid", name, remedy)


SHARED_BY_ROLES = ("image", "workingDir", "env")
"""What a job may say of all its roles, of that which each of them may say itself."""


def _default(field: msgspec.structs.FieldInfo) -> Any:
    return field.default if field.default is not msgspec.NODEFAULT else field.default_factory()


def _pod(pod: Pod) -> Iterator[Fault]:
    if not pod.spec.containers:
        yield Fault("spec.containers", "FieldValueRequired", None, "give at least one container")


RULES: dict[type[Kind], Callable[[Any], Iterator[Fault]]] = {
    Queue: _queue,
    Topology: _topology,
    Workload: _workload,
    TrainingJob: _training_job,
    Pod: _pod,
}
