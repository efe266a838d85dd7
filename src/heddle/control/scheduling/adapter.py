"""Objects to engine values, and back. Pure: no store, no clock."""

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from heddle.api import quantity
from heddle.api.clock import readable, to_seconds
from heddle.api.core import (
    DEVICES_INVENTORY_ANNOTATION,
    GPU_MEMORY_LABEL,
    GPU_PRODUCT_LABEL,
    GPU_RESOURCE,
    NODE_NAME_FIELD,
    SCHEDULER_NAME,
    SCHEDULER_TAINT,
    UNREACHABLE_TAINT,
    UNSCHEDULABLE_TAINT,
    Node,
)
from heddle.api.license import LICENSE_PREFIX, License
from heddle.api.meta import Quantity, Resources
from heddle.api.mig import instances_in
from heddle.api.pod import Pod, PodToleration
from heddle.api.queue import GPU_MODEL_PREFIX, Queue
from heddle.api.workload import (
    CHECKPOINT_ANNOTATION,
    DEVICES_ANNOTATION,
    GPU_MEMORY_ANNOTATION,
    GPU_SHARE_ANNOTATION,
    POD_SET_LABEL,
    USER_ANNOTATION,
    NodeTerm,
    SliceRule,
    SpreadRule,
    Workload,
)
from heddle.control.grouping import attachments, disks, requests
from heddle.control.grouping.demands import meeting_both
from heddle.control.scheduling import instances
from heddle.engine import (
    COUNTER,
    MODEL,
    Ageing,
    Device,
    LabelMatch,
    Neighbours,
    NodePreference,
    NodeSpec,
    PastUsage,
    Placement,
    PodSet,
    QueueSpec,
    Slices,
    Spread,
    Taint,
    Term,
    Toleration,
    WorkloadSpec,
)

NO_QUEUE = "(none)"
"""Queue of pods that no Workload speaks for; no queue can have this name."""

_SAID_OTHERWISE = {"node.kubernetes.io/not-ready", UNREACHABLE_TAINT, UNSCHEDULABLE_TAINT}
"""Taints that repeat what the node's condition and `unschedulable` say."""
_STRATEGIES = {"Pack": "pack", "Spread": "spread", "FragmentationAware": "fragmentation"}
_BETWEEN = (requests.PORT, attachments.RESOURCE, disks.RESOURCE)
"""Before amounts that no queue is owed and nobody is told of: ports and volumes of nodes."""
_UNITS = {"cpu": "cpu", "memory": "memory", GPU_RESOURCE: "gpu"}


def amounts(resources: Resources, *, gpu: bool = True) -> dict[str, int]:
    """Kubernetes resources in the engine's units: cpu and gpu in thousandths, memory in bytes, others whole."""
    found = {}
    for name, value in resources.items():
        if name == GPU_RESOURCE and not gpu:
            continue
        own = _UNITS.get(name, name)
        if name.startswith(LICENSE_PREFIX):
            own = COUNTER + name.removeprefix(LICENSE_PREFIX)
        found[own] = quantity.milli(value) if own in ("cpu", "gpu") else quantity.whole(value)
    return found


def queue_amounts(resources: Resources) -> dict[str, int | None]:
    """The same for amounts of queues, which may name GPUs of one model."""
    models = {name: value for name, value in resources.items() if name.startswith(GPU_MODEL_PREFIX)}
    found: dict[str, int | None] = {**amounts({n: v for n, v in resources.items() if n not in models})}
    for name, value in models.items():
        found[MODEL + name.removeprefix(GPU_MODEL_PREFIX)] = quantity.milli(value)
    return found


def models_of(spec: QueueSpec) -> frozenset[str]:
    """GPU models that a queue names."""
    listed = (spec.quota, spec.limit, spec.borrowing_limit, spec.lending_limit, spec.user_limit)
    return frozenset(name.removeprefix(MODEL) for part in listed for name in part if name.startswith(MODEL))


def resources(values: dict[str, int]) -> Resources:
    """Engine amounts as Kubernetes resources; what is only between pods and nodes is none."""
    back = {own: name for name, own in _UNITS.items()}
    found: Resources = {}
    for own, v in sorted(values.items()):
        if own.startswith(_BETWEEN):
            continue
        if own.startswith(MODEL):
            found[GPU_MODEL_PREFIX + own.removeprefix(MODEL)] = quantity.render(v)
        elif own.startswith(COUNTER):
            found[LICENSE_PREFIX + own.removeprefix(COUNTER)] = str(v)
        else:
            found[back.get(own, own)] = quantity.render(v) if own in ("cpu", "gpu") else quantity.render_bytes(v)
    return found


def node_spec(
    node: Node,
    models: frozenset[str] = frozenset(),
    ports: frozenset[str] = frozenset(),
    scheduler: str = SCHEDULER_NAME,
    attaches: Mapping[str, int] = MappingProxyType({}),
    marks: Mapping[str, str] = MappingProxyType({}),
) -> NodeSpec:
    """A machine for the engine; one that is not Ready, or cordoned, takes nothing new, whatever a pod tolerates.

    Its GPUs are counted by model too where that is one of `models`, those that queues name; it has one of each of
    `ports`, those that pods ask for, `attaches` so many volumes of each driver, and has the labels `marks` beside its
    own. The taint that keeps other schedulers away keeps nobody away from `scheduler`.
    """
    ready = any(c.type == "Ready" and c.status == "True" for c in node.status.conditions)
    taints = tuple(
        Taint(t.key, t.value, t.effect)
        for t in node.spec.taints
        if t.effect in ("NoSchedule", "PreferNoSchedule", "NoExecute")
        and t.key not in _SAID_OTHERWISE
        and (t.key, t.value) != (SCHEDULER_TAINT, scheduler)
    )
    devices = _devices(node)
    offered = {r: v for r, v in node.status.allocatable.items() if not r.startswith(LICENSE_PREFIX)}
    found = amounts(offered, gpu=False)
    if (model := node.metadata.labels.get(GPU_PRODUCT_LABEL)) in models:
        found[f"{MODEL}{model}"] = 1000 * len(devices)
    found |= {**dict.fromkeys(ports, 1), **attaches}
    return NodeSpec(
        name=node.metadata.name,
        resources=found,
        devices=devices,
        labels={**node.metadata.labels, NODE_NAME_FIELD: node.metadata.name, **marks},
        schedulable=ready and not node.spec.unschedulable,
        taints=taints,
    )


def _devices(node: Node) -> tuple[Device, ...]:
    count = quantity.whole(node.status.allocatable.get(GPU_RESOURCE, 0))
    try:
        listed: list[dict[str, Any]] = json.loads(node.metadata.annotations.get(DEVICES_INVENTORY_ANNOTATION, "[]"))
        links = {name: i for i, name in enumerate(sorted({str(d["link"]) for d in listed if d.get("link")}))}
        known = tuple(
            Device(
                id=str(d["id"]), index=int(d["index"]), model=str(d.get("model", "")),
                memory_mib=int(d.get("memoryMib", 0)), numa=int(d.get("numa", -1)),
                link=links.get(str(d.get("link")), -1),
            )
            for d in listed
        )  # fmt: skip
        cut = tuple(each for device, d in zip(known, listed, strict=True) for each in _cut(device, d))
        known = tuple(device for device, d in zip(known, listed, strict=True) if not d.get("mig"))
    except (ValueError, KeyError, TypeError, AttributeError):
        known, cut = (), ()
    if len(known) >= count:
        return (*known[:count], *cut)
    labels = node.metadata.labels
    memory = labels.get(GPU_MEMORY_LABEL, "")
    return tuple(
        Device(
            id=f"{node.metadata.name}/{i}",
            index=i,
            model=labels.get(GPU_PRODUCT_LABEL, ""),
            memory_mib=int(memory) if memory.isascii() and memory.isdigit() else 0,
        )
        for i in range(count)
    )


def _cut(device: Device, listed: dict[str, Any]) -> tuple[Device, ...]:
    """A device in MIG mode, where the engine knows how it is cut."""
    try:
        mig = instances.mig_of(listed)
    except (ValueError, KeyError, TypeError):
        return ()
    return () if mig is None else (replace(device, mig=mig),)


def has_inventory(node: Node) -> bool:
    """Whether the GPUs of a node are known one by one: heddle says which a pod gets. Elsewhere the kubelet does."""
    return DEVICES_INVENTORY_ANNOTATION in node.metadata.annotations


def mebibytes(value: Quantity) -> int:
    """A quantity of bytes in MiB, rounded up."""
    return -(-quantity.whole(value) // 2**20)


def queue_spec(queue: Queue) -> QueueSpec:
    """A queue for the engine: without a stated GPU quota it is owed no GPUs."""
    ageing = queue.spec.ageing
    quota: dict[str, int | None] = {"gpu": 0, **queue_amounts(queue.spec.quota)}
    return QueueSpec(
        name=queue.metadata.name,
        parent=queue.spec.parent or None,
        quota=quota,
        limit=queue_amounts(queue.spec.limit),
        weight=queue.spec.weight,
        priority=queue.spec.priority,
        borrowing_limit=queue_amounts(queue.spec.borrowing_limit),
        lending_limit=queue_amounts(queue.spec.lending_limit),
        stop_policy=queue.spec.stop_policy,
        user_limit=queue_amounts(queue.spec.user_limit),
        ordering=queue.spec.ordering,
        usage_half_life=queue.spec.usage_half_life_seconds,
        preempt_min_runtime=queue.spec.preempt_min_runtime_seconds,
        reclaim_min_runtime=queue.spec.reclaim_min_runtime_seconds,
        drain_after=queue.spec.drain_after_seconds,
        ageing=None if ageing is None else Ageing(ageing.seconds_per_point, ageing.max_points),
    )


def counters(licenses: Mapping[str, License]) -> dict[str, int]:
    """How many there are of each licence."""
    return {COUNTER + name: found.spec.count for name, found in licenses.items()}


def past_usage(queue: Queue) -> PastUsage | None:
    """What its status remembers of a queue's use; None = nothing, or nothing that can be read."""
    status = queue.status
    if status.past_usage_time is None:
        return None
    try:
        found = {}
        for name, value in status.past_usage.items():
            (own,) = queue_amounts({name: 0})
            found[own] = float(value) * (1 if own not in ("cpu", "gpu") and not own.startswith(MODEL) else 1000)
        return PastUsage(to_seconds(status.past_usage_time), found)
    except ValueError:
        return None


def past_resources(past: PastUsage) -> Resources:
    """Decayed use as decimal text, exact: it is read again."""
    back = {own: name for name, own in _UNITS.items()}
    found: Resources = {}
    for own, value in past.amounts.items():
        if own.startswith(_BETWEEN):
            continue
        if own.startswith(MODEL):
            found[GPU_MODEL_PREFIX + own.removeprefix(MODEL)] = repr(value / 1000)
        elif own.startswith(COUNTER):
            found[LICENSE_PREFIX + own.removeprefix(COUNTER)] = repr(value)
        else:
            found[back.get(own, own)] = repr(value / 1000 if own in ("cpu", "gpu") else value)
    return found


def workload_spec(
    workload: Workload,
    pods: Collection[Pod],
    *,
    admitted: bool = True,
    models: frozenset[str] = frozenset(),
    sets: Mapping[str, str] | None = None,
    picks: bool = True,
    budgets_of: Callable[[Pod], tuple[str, ...]] = lambda pod: (),
    company_of: Callable[[Pod], Neighbours | None] = lambda pod: None,
    reach_of: Callable[[Pod], list[NodeTerm]] = lambda pod: [],
    attached_of: Callable[[Pod], dict[str, int]] = lambda pod: {},
) -> WorkloadSpec:
    """A workload for the engine, made of the pods of it that exist.

    A pod that has ended needs no place any more, so that the minimum shrinks with it; a workload of which pods have
    ended well is ending, and grows no more. One that is not `admitted` keeps what it holds (a place that is taken is
    taken, whoever may submit now) and gets nothing new. GPUs of a pod set whose node selector pins one of `models` are
    counted by model too; those of one that may use several models, once it has a place.

    What a pod set that is not resizable started with is its minimum from then on; before, all its pods must exist.

    `picks`: heddle says which MIG instance a pod gets; else such resources are counts that nodes offer.

    `sets` says to which pod set a pod belongs; without it the pods' labels do. `budgets_of` names the disruption
    budgets that keep a pod, `company_of` says whom it must, or must not, run beside, `reach_of` what it demands of its
    node beside what the workload says, `attached_of` the volumes that its node must attach: those of a pod set are its
    first pod's.

    A pod of a movable workload that has a place reserved but does not exist is on its way there: its owner makes it
    anew, and its place is kept meanwhile.
    """
    by_set: dict[str, list[Pod]] = {}
    present = {pod.metadata.name for pod in pods}
    awaited: set[str] = set()
    for pod in pods:
        name = sets.get(pod.metadata.name, "") if sets else pod.metadata.labels.get(POD_SET_LABEL, "")
        by_set.setdefault(name, []).append(pod)
    parts = []
    for pod_set in workload.spec.pod_sets:
        mine = by_set.get(pod_set.name, [])
        living = sorted((p for p in mine if not p.finished), key=_order)
        settled = 0 if pod_set.resizable else min(workload.status.admitted_counts.get(pod_set.name, 0), pod_set.count)
        if not (pod_set.resizable or settled or any(p.spec.node_name for p in mine)) and len(mine) < pod_set.count:
            settled = pod_set.count  # it does not start with fewer only because its owner is still making them
        minimum = max(0, max(pod_set.minimum, settled) - sum(p.finished for p in mine))
        if not admitted:
            living = [p for p in living if p.spec.node_name]
            minimum = min(minimum, len(living))
        elif any(p.status.phase == "Succeeded" for p in mine):
            placed = [p for p in living if p.spec.node_name]
            waiting = [p for p in living if not p.spec.node_name]
            living = [*placed, *waiting[: max(0, minimum - len(placed))]]
        coming = [r.pod for r in workload.status.reservation if r.pod_set == pod_set.name and r.pod not in present]
        coming = coming[: pod_set.count - len(mine)] if admitted and workload.spec.movable else []
        awaited.update(coming)
        asked = amounts(pod_set.resources) | (attached_of(living[0]) if living else {})
        speeds = {model: quantity.milli(speed) / 1000 for model, speed in pod_set.gpu_speeds.items()}
        chosen = tuple(pod_set.gpu_models or sorted(speeds, key=lambda model: (-speeds[model], model)))
        if (model := pod_set.node_selector.get(GPU_PRODUCT_LABEL)) in models:
            if asked.get("gpu"):
                asked[f"{MODEL}{model}"] = asked["gpu"]
            elif pod_set.gpu_memory is not None and model:  # what share it is, its card will tell
                chosen = (model,)
        parts.append(
            PodSet(
                name=pod_set.name,
                tasks=(*(p.metadata.name for p in living), *coming),
                min=minimum,
                request={name: value for name, value in asked.items() if name != "gpu"},
                gpu=asked.get("gpu", 0),
                mig=instances.profile_of(pod_set.resources) if picks else "",
                node_selector=dict(pod_set.node_selector),
                tolerations=tuple(toleration(t) for p in living[:1] for t in p.spec.tolerations),
                node_affinity=tuple(map(_term, _within(pod_set.node_affinity.required, reach_of, living))),
                node_preferences=tuple(
                    NodePreference(p.weight, _term(p.preference)) for p in pod_set.node_affinity.preferred
                ),
                spread=_spread(pod_set.spread),
                slices=_slices(pod_set.slices),
                exclusive=pod_set.exclusive,
                group=pod_set.group,
                after=tuple(pod_set.after),
                gpu_models=chosen,
                gpu_speeds=speeds,
                gpu_memory=mebibytes(pod_set.gpu_memory) if pod_set.gpu_memory is not None else 0,
                step=pod_set.step,
                budgets=budgets_of(living[0]) if living else (),
                resizable=pod_set.resizable,
                neighbours=company_of(living[0]) if living else None,
            )
        )
    spec = workload.spec
    return WorkloadSpec(
        name=workload.key,
        queue=spec.queue,
        pod_sets=tuple(parts),
        priority=spec.priority,
        preemptible=spec.preemptible,
        created=to_seconds(workload.metadata.creation_timestamp),
        topology_required=spec.topology.required or None,
        topology_preferred=spec.topology.preferred or None,
        strategy=_STRATEGIES[spec.placement],
        user=workload.metadata.annotations.get(USER_ANNOTATION, ""),
        broken_since=to_seconds(workload.status.broken_since) if workload.status.broken_since else None,
        walltime=spec.walltime_seconds,
        movable=spec.movable,
        awaited=frozenset(awaited),
        min_groups=spec.min_groups,
        gang_grace=spec.gang_grace_seconds,
        separate_gpus=spec.separate_gpus,
        checkpointed=_checkpointed(workload, pods),
        gentle=any(pod.spec.preemption_policy == "Never" for pod in pods),
    )


def toleration(t: PodToleration) -> Toleration:
    """A pod's toleration, as Kubernetes reads it: Exists takes any value, no key any taint, no effect any effect."""
    return _toleration(t.key, None if t.operator == "Exists" else t.value, t.effect or None)


_toleration = lru_cache(maxsize=1024)(Toleration)  # nearly all pods of a cluster have the same two


def _checkpointed(workload: Workload, pods: Iterable[Pod]) -> float | None:
    """When it last saved, as its owner or any of its pods says."""
    latest = readable(workload.status.checkpoint_time)
    for pod in pods:
        if CHECKPOINT_ANNOTATION in pod.metadata.annotations:
            at = readable(pod.metadata.annotations[CHECKPOINT_ANNOTATION])
            latest = at if latest is None or (at is not None and at > latest) else latest
    return latest


def _within(required: list[NodeTerm], reach_of: Callable[[Pod], list[NodeTerm]], living: list[Pod]) -> list[NodeTerm]:
    return meeting_both(required, reach_of(living[0])) if living else required


def _term(term: NodeTerm) -> Term:
    return tuple(LabelMatch(m.key, m.operator, tuple(m.values)) for m in term.match_expressions)


def _spread(rule: SpreadRule | None) -> Spread | None:
    return Spread(rule.level, rule.max_per_domain, rule.max_skew) if rule else None


def _slices(rule: SliceRule | None) -> Slices | None:
    return Slices(rule.level, rule.size, rule.balanced) if rule else None


def orphan_spec(
    key: str,
    pods: Iterable[Pod],
    *,
    picks: bool = True,
    budgets_of: Callable[[Pod], tuple[str, ...]] = lambda pod: (),
    company_of: Callable[[Pod], Neighbours | None] = lambda pod: None,
    attached_of: Callable[[Pod], dict[str, int]] = lambda pod: {},
) -> WorkloadSpec:
    """Bound pods whose Workload is gone (or never was): they hold what they hold, until they end."""
    sets = []
    for pod in pods:
        total = amounts(requests.resources(requests.of(pod))) | attached_of(pod)
        share = pod.metadata.annotations.get(GPU_SHARE_ANNOTATION)
        memory = pod.metadata.annotations.get(GPU_MEMORY_ANNOTATION)
        # what it was given is what it holds, whatever it says that it asked for
        held = devices_of(pod)
        mig = instances.profile_of(requests.resources(requests.of(pod))) if picks and instances_in(held) else ""
        gpu = 0 if memory or mig else quantity.milli(share) if share else 1000 * len(held) or total.get("gpu", 0)
        sets.append(
            PodSet(
                name=f"{pod.metadata.labels.get(POD_SET_LABEL, '')}/{pod.metadata.name}",
                tasks=(pod.metadata.name,),
                min=1,
                request={name: value for name, value in total.items() if name != "gpu"},
                gpu=gpu,
                mig=mig,
                gpu_memory=mebibytes(memory) if memory else 0,
                budgets=budgets_of(pod),
                neighbours=company_of(pod),
            )
        )
    return WorkloadSpec(name=key, queue=NO_QUEUE, pod_sets=tuple(sets), preemptible=False)


def _order(pod: Pod) -> tuple[int, str]:
    index = pod.metadata.name.rsplit("-", 1)[-1]
    return (int(index) if index.isdigit() else 0, pod.metadata.name)


def devices_of(pod: Pod) -> tuple[str, ...]:
    """Device ids that the scheduler gave a bound pod."""
    return tuple(filter(None, pod.metadata.annotations.get(DEVICES_ANNOTATION, "").split(",")))


def placement(workload: str, pod: Pod, pod_set: str) -> Placement:
    """Where a bound pod is, as the engine says it."""
    return Placement(
        workload=workload,
        pod_set=pod_set,
        task=pod.metadata.name,
        node=pod.spec.node_name,
        devices=devices_of(pod),
    )
