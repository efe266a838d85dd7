"""What the engine is told: nodes with devices, a tree of queues, workloads made of pod sets.

All amounts are whole numbers. ``gpu`` counts thousandths of a physical device (1000 = one device),
``cpu`` counts milli-CPUs, ``memory`` counts bytes; any further resource has the caller's own unit. Times
are seconds on the caller's clock. Every value here is immutable and checks itself: a bad one raises
``ValueError`` that names the field, the value and the remedy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import floor

from heddle.engine.mig import GEOMETRIES, Instance, geometry_of

GPU = "gpu"
CPU = "cpu"
MEMORY = "memory"
WHOLE = 1000
"""Milli-units of one whole device."""

MODEL = GPU + ":"
"""Prefix of resources that count GPUs of one model, as ``gpu:H100``, in thousandths like ``gpu``. A node has it in
``resources``, and a pod set that may only run there in ``request``: the caller says both, beside the GPUs."""

COUNTER = "counter:"
"""Prefix of resources that no node has, as ``counter:matlab`` for floating licences: how many there are in the cluster
is told with :meth:`State.set_counters`, and a pod set says in ``request`` how many one task holds while it runs."""

_MAX = 2**53


def _fault(where: str, value: object, remedy: str) -> ValueError:
    return ValueError(f"{where}: {value!r} is not valid; {remedy}")


def _name(where: str, value: str) -> None:
    if not isinstance(value, str) or not value:
        raise _fault(where, value, "give a name that is not empty")


def _amount(where: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _MAX:
        raise _fault(where, value, "give a whole number from 0 to 2^53 - 1")


def _amounts(where: str, values: Mapping[str, int | None], *, null: bool = False) -> None:
    for resource, value in values.items():
        if resource and type(resource) is str and type(value) is int and 0 <= value < _MAX:
            continue  # as a rule: no words for a fault are needed
        _name(f"{where} resource", resource)
        if value is None and null:
            continue
        _amount(f"{where}[{resource}]", value)  # type: ignore[arg-type]


def _check_order(pod_sets: tuple[PodSet, ...]) -> None:
    """Refuses an order in which some pod set could never start."""
    for pod_set in pod_sets:
        if pod_set.after:
            break
    else:
        return
    by_name = {pod_set.name: pod_set for pod_set in pod_sets}
    for pod_set in pod_sets:
        where = f"pod_set.after of {pod_set.name}"
        for name in pod_set.after:
            if name not in by_name:
                raise _fault(where, name, f"name a pod set of the workload: {', '.join(by_name)}")
            if by_name[name].group not in ("", pod_set.group):
                raise _fault(where, name, "name a pod set of the same group, or of none")
        seen, due = set[str](), list(pod_set.after)
        while due:
            name = due.pop()
            if name == pod_set.name:
                raise _fault(where, list(pod_set.after), "no pod set may wait for itself; leave one of them out")
            if name not in seen:
                seen.add(name)
                due += by_name[name].after if name in by_name else ()


def check_counters(counts: Mapping[str, int]) -> None:
    """Refuses counts of what a node might have, and amounts that are none."""
    for name in counts:
        if not name.startswith(COUNTER) or name == COUNTER:
            raise _fault("counters", name, f"begin with {COUNTER!r}, as {COUNTER}matlab")
    _amounts("counters", counts)


def check_budgets(least: Mapping[str, int]) -> None:
    """Refuses disruption budgets without a name, and numbers that are none."""
    for name, value in least.items():
        _name("disruption_budgets", name)
        _amount(f"disruption_budgets[{name}]", value)


def _number(where: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e15:
        raise _fault(where, value, "give a finite number")


@dataclass(frozen=True, slots=True)
class Mig:
    """A GPU in MIG mode: it has instances, and cannot be used as a whole.

    Attributes:
        geometry: what it can be cut into, a name of :data:`heddle.engine.mig.GEOMETRIES`.
        instances: (profile, start) of those that there are; None = whoever runs the node cuts free ranges as planned.
    """

    geometry: str
    instances: tuple[Instance, ...] | None = None

    def __post_init__(self) -> None:
        geometry_of(self.geometry, self.instances)


@dataclass(frozen=True, slots=True)
class Device:
    """One physical GPU.

    Attributes:
        id: unique on its node, for instance the device's UUID.
        index: the node's own numbering; devices are offered in this order.
        model: product name, for people and selectors.
        memory_mib: device memory in MiB (0 = not known).
        numa: NUMA node it hangs on (-1 = not known).
        link: group of devices joined by fast links, such as one NVLink switch (-1 = none).
        mig: how it is cut; None = it is not in MIG mode.
    """

    id: str
    index: int
    model: str = ""
    memory_mib: int = 0
    numa: int = -1
    link: int = -1
    mig: Mig | None = None

    def __post_init__(self) -> None:
        _name("device.id", self.id)
        _amount("device.memory_mib", self.memory_mib)


_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")


@dataclass(frozen=True, slots=True)
class Toleration:
    """Accepts taints.

    Attributes:
        key: of the taints accepted; empty = of any.
        value: what the taint's value must be; None = any.
        effect: which effect is accepted (see :class:`Taint`); None = any.
    """

    key: str
    value: str | None = None
    effect: str | None = None

    def __post_init__(self) -> None:
        if self.effect is not None and self.effect not in _EFFECTS:
            raise _fault("toleration.effect", self.effect, f"use one of {', '.join(_EFFECTS)}, or None for any")

    def accepts(self, taint: Taint) -> bool:
        """Whether the taint is tolerated."""
        return self.key in ("", taint.key) and self.value in (None, taint.value) and self.effect in (None, taint.effect)


@dataclass(frozen=True, slots=True)
class Taint:
    """Keeps away every pod set that does not tolerate it.

    Attributes:
        key: its name.
        value: its value.
        effect: ``NoSchedule`` and ``NoExecute`` admit nothing new (whoever acts on ``NoExecute`` evicts what
            runs; the engine never does); ``PreferNoSchedule`` only makes the node the last choice.
    """

    key: str
    value: str = ""
    effect: str = "NoSchedule"

    def __post_init__(self) -> None:
        if self.effect not in _EFFECTS:
            raise _fault("taint.effect", self.effect, f"use one of {', '.join(_EFFECTS)}")


_OPERATORS = {"In": 1, "NotIn": 1, "Exists": 0, "DoesNotExist": 0, "Gt": 1, "Lt": 1}


@dataclass(frozen=True, slots=True)
class LabelMatch:
    """A demand on one label of a node, as in a Kubernetes node selector term.

    Attributes:
        label: the label's key.
        operator: ``In`` or ``NotIn`` (``values``; a node without the label is not in), ``Exists``,
            ``DoesNotExist``, ``Gt``, ``Lt`` (the label is a whole number above or below the one value).
        values: what the operator compares with.
    """

    label: str
    operator: str
    values: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _name("label_match.label", self.label)
        if self.operator not in _OPERATORS:
            raise _fault("label_match.operator", self.operator, f"use one of {', '.join(_OPERATORS)}")
        if bool(self.values) != bool(_OPERATORS[self.operator]):
            remedy = "give at least one" if _OPERATORS[self.operator] else "leave it empty"
            raise _fault(f"label_match.values ({self.operator})", self.values, remedy)
        if self.operator in ("Gt", "Lt") and (len(self.values) != 1 or _whole(self.values[0]) is None):
            raise _fault(f"label_match.values ({self.operator})", self.values, "give one whole number")

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether a node with these labels meets the demand."""
        value = labels.get(self.label)
        match self.operator:
            case "In":
                return value is not None and value in self.values
            case "NotIn":
                return value not in self.values
            case "Exists":
                return value is not None
            case "DoesNotExist":
                return value is None
        have, bound = _whole(value or ""), _whole(self.values[0])
        if have is None or bound is None:
            return False
        return have > bound if self.operator == "Gt" else have < bound


def _whole(text: str) -> int | None:
    digits = text[1:] if text[:1] in "+-" else text
    return int(text) if digits.isascii() and digits.isdigit() and len(digits) <= 18 else None


Term = tuple[LabelMatch, ...]
"""Demands that must all hold."""


@dataclass(frozen=True, slots=True)
class NodePreference:
    """Nodes that a pod set would rather have.

    Attributes:
        weight: 1 to 100; the weights of all preferences that a node meets add up.
        term: what must hold on the node.
    """

    weight: int
    term: Term

    def __post_init__(self) -> None:
        if isinstance(self.weight, bool) or not isinstance(self.weight, int) or not 1 <= self.weight <= 100:
            raise _fault("node_preference.weight", self.weight, "give a whole number from 1 to 100")
        if not self.term:
            raise _fault("node_preference.term", self.term, "give at least one demand")


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """A machine.

    Attributes:
        name: unique in the cluster.
        resources: what pods may use of everything but GPUs (``cpu`` milli, ``memory`` bytes, others in
            own units). A resource that is absent here does not exist on the node.
        devices: its GPUs. They alone make up ``gpu``; a ``gpu`` entry in ``resources`` is refused.
        labels: for node selectors and topology levels.
        schedulable: False = nothing new is placed here; what runs stays.
        taints: see :class:`Taint`.
    """

    name: str
    resources: Mapping[str, int] = field(default_factory=dict)
    devices: tuple[Device, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    schedulable: bool = True
    taints: tuple[Taint, ...] = ()

    def __post_init__(self) -> None:
        _name("node.name", self.name)
        _amounts("node.resources", self.resources)
        if GPU in self.resources:
            raise _fault("node.resources[gpu]", self.resources[GPU], "describe GPUs in `devices`")
        for name in self.resources:
            if name.startswith(COUNTER):
                raise _fault(f"node.resources[{name}]", self.resources[name], "no node has it; use `set_counters`")
        seen = [device.id for device in self.devices]
        if len(set(seen)) != len(seen):
            raise _fault("node.devices", seen, "give each device of a node its own id")


@dataclass(frozen=True, slots=True)
class Ageing:
    """How waiting moves work up in its queue's line.

    Attributes:
        seconds: so long is worth one point of priority; points change at whole multiples of it on the clock.
        most: points that age is worth at most.
    """

    seconds: float
    most: int

    def __post_init__(self) -> None:
        _number("queue.ageing.seconds", self.seconds)
        if self.seconds <= 0:
            raise _fault("queue.ageing.seconds", self.seconds, "give more than 0")
        _amount("queue.ageing.most", self.most)

    def tick(self, now: float) -> int:
        """The moment up to which ages are counted, in points."""
        return floor(now / self.seconds)

    def points(self, created: float, tick: int) -> int:
        """What the age of work created then is worth."""
        return max(0, min(self.most, tick - self.tick(created)))


@dataclass(frozen=True, slots=True)
class QueueSpec:
    """A node of the queue tree. Workloads live in queues without children.

    Attributes:
        name: unique among queues.
        parent: the queue above, or None at the top. A parent that does not (yet) exist, or a cycle, is
            no error: the queue is inactive and its workloads wait with a typed reason.
        quota: what the queue is owed before any surplus is shared, per resource. A resource that is
            absent or None is owed without bound (it is not constrained by quota); 0 = nothing is owed.
        limit: hard cap on all that runs below the queue, per resource; absent or None = no cap.
        weight: claim on surplus among siblings of equal priority, one number or one per resource (absent
            = 1). 0 = no claim, though idle room may still be used.
        priority: surplus is shared among siblings of the highest number first; never touches quota.
        borrowing_limit: how much more than its quota may run below the queue, per resource of which it has
            a quota; absent or None = any amount.
        lending_limit: how much of its quota others may use while it is idle, per resource of which it has a
            quota; the rest is kept back for the queue, idle or not. Absent or None = all of it.
        stop_policy: ``None``; ``Hold`` starts nothing new in the queue and all below, what runs stays;
            ``HoldAndDrain`` also evicts what runs there and is preemptible.
        user_limit: hard cap on what runs below the queue for any one submitter, per resource; absent or
            None = no cap.
        ordering: ``BestEffort`` lets those behind start while the head of the line cannot; ``StrictFIFO``
            lets nobody pass. Counts for the queue's own workloads only.
        ageing: lets age raise the place of the queue's own workloads in its line; None = it does not.
        usage_half_life: seconds after which use counts half; among siblings that otherwise stand equal the
            one that used less lately goes first. None = past use does not count.
        preempt_min_runtime: seconds that work below the queue runs before its minimum may be preempted; None = as the
            queue above says, at the top 0.
        reclaim_min_runtime: the same before it may be reclaimed by other queues.
        drain_after: seconds after which nothing new starts where a waiting claim that is within its share will run,
            though no known end makes room for it; None = as the queue above says, at the top never.
    """

    name: str
    parent: str | None = None
    quota: Mapping[str, int | None] = field(default_factory=dict)
    limit: Mapping[str, int | None] = field(default_factory=dict)
    weight: float | Mapping[str, float] = 1
    priority: int = 0
    borrowing_limit: Mapping[str, int | None] = field(default_factory=dict)
    lending_limit: Mapping[str, int | None] = field(default_factory=dict)
    stop_policy: str = "None"
    user_limit: Mapping[str, int | None] = field(default_factory=dict)
    ordering: str = "BestEffort"
    ageing: Ageing | None = None
    usage_half_life: float | None = None
    preempt_min_runtime: float | None = None
    reclaim_min_runtime: float | None = None
    drain_after: float | None = None

    def __post_init__(self) -> None:
        _name("queue.name", self.name)
        _amounts("queue.quota", self.quota, null=True)
        _amounts("queue.limit", self.limit, null=True)
        weights = self.weight if isinstance(self.weight, Mapping) else {"": self.weight}
        for resource, weight in weights.items():
            where = f"queue.weight[{resource}]" if resource else "queue.weight"
            _number(where, weight)
            if weight < 0:
                raise _fault(where, weight, "give 0 or more")
        _number("queue.priority", self.priority)
        for limit, amounts in (("borrowing_limit", self.borrowing_limit), ("lending_limit", self.lending_limit)):
            _amounts(f"queue.{limit}", amounts, null=True)
            for resource, value in amounts.items():
                quota = self.quota.get(resource)
                if value is not None and quota is None:
                    raise _fault(f"queue.{limit}[{resource}]", value, f"give a quota of {resource} too")
                if limit == "lending_limit" and value is not None and quota is not None and value > quota:
                    raise _fault(f"queue.{limit}[{resource}]", value, f"give at most the quota of {quota}")

        _amounts("queue.user_limit", self.user_limit, null=True)
        if self.usage_half_life is not None:
            _number("queue.usage_half_life", self.usage_half_life)
            if self.usage_half_life <= 0:
                raise _fault("queue.usage_half_life", self.usage_half_life, "give more than 0 seconds")
        for where in ("preempt_min_runtime", "reclaim_min_runtime", "drain_after"):
            value = getattr(self, where)
            if value is not None:
                _number(f"queue.{where}", value)
                if value < 0:
                    raise _fault(f"queue.{where}", value, "give 0 seconds or more, or None for what is said above")
        if self.ordering not in ("BestEffort", "StrictFIFO"):
            raise _fault("queue.ordering", self.ordering, "use 'BestEffort' or 'StrictFIFO'")
        if self.stop_policy not in ("None", "Hold", "HoldAndDrain"):
            raise _fault("queue.stop_policy", self.stop_policy, "use 'None', 'Hold' or 'HoldAndDrain'")

    def weight_of(self, resource: str) -> float:
        """The claim on surplus of one resource."""
        if isinstance(self.weight, Mapping):
            return float(self.weight.get(resource, 1))
        return float(self.weight)


NODE = "kubernetes.io/hostname"
"""The innermost topology level: each node by itself, whatever levels the topology names."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Keeps the tasks of a pod set apart; looked at when a task is placed. Give ``most``, ``skew`` or both.

    Attributes:
        level: label of the topology level whose domains are counted (:data:`NODE` = single nodes). Nodes outside
            any domain take no task.
        most: so many tasks in one domain at most (1 = no two together).
        skew: a domain that takes a task may then hold so many more than the emptiest domain, among domains with
            a node that admits the pod set (inside the one domain of the level that the workload requires, if any).
    """

    level: str
    most: int | None = None
    skew: int | None = None

    def __post_init__(self) -> None:
        _name("spread.level", self.level)
        if self.most is None and self.skew is None:
            raise _fault("spread", self.level, "give `most`, `skew` or both")
        for where, value in (("spread.most", self.most), ("spread.skew", self.skew)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise _fault(where, value, "give a whole number from 1 on")


@dataclass(frozen=True, slots=True)
class Slices:
    """Keeps every few tasks of a pod set together, in as few domains as hold them all.

    Attributes:
        level: label of the topology level of which one domain holds a slice; inside the level that the workload
            requires, if it requires one.
        size: tasks of one slice. Tasks go to slices in their order, so that neighbours in rank are neighbours.
        balanced: over the domains that are used, slices are spread evenly instead of filling one after the other.
    """

    level: str
    size: int = 1
    balanced: bool = False

    def __post_init__(self) -> None:
        _name("slices.level", self.level)
        if isinstance(self.size, bool) or not isinstance(self.size, int) or self.size < 1:
            raise _fault("slices.size", self.size, "give a whole number from 1 on")


@dataclass(frozen=True, slots=True)
class Near:
    """Puts tasks where a crowd is.

    Attributes:
        levels: labels of nodes. A node must have them all, and for each of them somebody of the crowd must be on a node
            of the same value.
        crowd: whose company is sought. A task that is of the crowd itself may also be its first, where nobody of it is
            anywhere.
    """

    levels: tuple[str, ...]
    crowd: str

    def __post_init__(self) -> None:
        _name("near.crowd", self.crowd)
        if not self.levels or not all(self.levels) or len(set(self.levels)) != len(self.levels):
            raise _fault("near.levels", self.levels, "name each label of nodes once, and at least one")


@dataclass(frozen=True, slots=True)
class Apart:
    """Keeps tasks and a crowd away from each other, whoever comes first.

    Attributes:
        level: label of nodes: not on nodes of the same value. Nodes without it keep nobody away. "" = not at the same
            time, wherever.
        crowd: whose company is shunned.
    """

    level: str
    crowd: str

    def __post_init__(self) -> None:
        _name("apart.crowd", self.crowd)


@dataclass(frozen=True, slots=True)
class Even:
    """Keeps a crowd even over the values of a label of nodes; looked at when a task is placed.

    Attributes:
        level: the label. Nodes without it take no task.
        crowd: who is counted; "" = nobody.
        skew: where a task goes, there may then be so many more of the crowd than at the value that has fewest.
        values: with fewer values than this, the one that has fewest is taken to have none.
        admitted: only nodes count whose labels the pod set's selector and affinity admit.
        tolerated: only nodes count whose taints the pod set tolerates.
    """

    level: str
    crowd: str
    skew: int
    values: int = 1
    admitted: bool = True
    tolerated: bool = False

    def __post_init__(self) -> None:
        _name("even.level", self.level)
        for where, value in (("even.skew", self.skew), ("even.values", self.values)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise _fault(where, value, "give a whole number from 1 on")


@dataclass(frozen=True, slots=True)
class Liked:
    """Makes nodes better, or worse, by how many of a crowd are where they are.

    Attributes:
        level: label of nodes: those of a crowd count that are on a node of the same value.
        crowd: who is counted.
        weight: of each of them against others that are liked; below 0 they are disliked.
    """

    level: str
    crowd: str
    weight: int

    def __post_init__(self) -> None:
        _name("liked.level", self.level)
        _name("liked.crowd", self.crowd)
        if isinstance(self.weight, bool) or not isinstance(self.weight, int) or not self.weight:
            raise _fault("liked.weight", self.weight, "give a whole number other than 0")


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Where the tasks of a pod set may be, by the tasks that are there already, of whatever workload.

    A crowd is a set of tasks that somebody's rule is about; the caller says who is in it and gives it a name.

    Attributes:
        crowds: those that its tasks belong to, sorted.
        near: whose company they need.
        apart: whose company they shun.
        even: over which labels whom they keep even.
        liked: whose company makes a node better for them, or worse.
        evened: where they would rather keep even; how much more than that is too much (``skew``) is of no account.
    """

    crowds: tuple[str, ...] = ()
    near: Near | None = None
    apart: tuple[Apart, ...] = ()
    even: tuple[Even, ...] = ()
    liked: tuple[Liked, ...] = ()
    evened: tuple[Even, ...] = ()

    def __post_init__(self) -> None:
        if not all(self.crowds) or list(self.crowds) != sorted(set(self.crowds)):
            raise _fault("neighbours.crowds", self.crowds, "name each crowd once, sorted")

    @property
    def ruled(self) -> bool:
        """Whether its tasks have any rule of their own."""
        return bool(self.near or self.apart or self.even)

    @property
    def wishful(self) -> bool:
        """Whether it is not all the same to its tasks who is where they may be."""
        return bool(self.liked or self.evened)


@dataclass(frozen=True, slots=True)
class PodSet:
    """Identical tasks of a workload.

    Attributes:
        name: unique in the workload.
        tasks: the tasks that exist now, in the order in which they should start. May be fewer than
            ``min`` while their owner is still creating them: the workload then waits with ``MembersMissing``.
        min: all-or-nothing minimum; tasks beyond it are elastic.
        request: what one task needs of everything but GPUs.
        gpu: milli-devices of one task: below 1000 a share of ONE device, else a multiple of 1000.
        gpu_memory: MiB of ONE device, in place of ``gpu``: the share that this is depends on where it lands.
        mig: a MIG profile as ``3g.40gb``, of which each task gets one instance, in place of ``gpu``.
        gpu_models: models of GPUs that it may use, the best first (none = any). All its tasks are on GPUs of one.
        gpu_speeds: of some of these models, how fast they are: a walltime is stated for speed 1, which the others have.
        node_selector: labels that a node must have.
        tolerations: taints that it accepts.
        node_affinity: a node must meet one of these terms (none = any node will do).
        node_preferences: nodes that come first, before any strategy is asked.
        spread: keeps its tasks apart.
        slices: keeps every few of its tasks together; not beside ``spread``.
        exclusive: each task has a node to itself: nobody else is there when it comes, nobody joins.
        group: pod sets of one group start together or not at all, where the workload says how many groups it needs;
            "" = in no group: always needed.
        after: pod sets of the workload that must be ready (as many tasks as their ``min``) before this one starts.
            Places are found for all at once; those of this one are reserved until then.
        resizable: False = how many run is settled when the first of them start: as many as find room then. Later none
            joins, and none leaves but with all others. The caller makes that number its ``min``, so that those that are
            lost are replaced.
        step: tasks beyond the minimum start and leave so many at a time; fewer that are left over never start.
        budgets: names of the disruption budgets against which its tasks count (see
            :meth:`State.set_disruption_budgets`).
        neighbours: which tasks of others may, or must, be where its tasks are; None = that is of no account.
    """

    name: str
    tasks: tuple[str, ...]
    min: int
    request: Mapping[str, int] = field(default_factory=dict)
    gpu: int = 0
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    node_affinity: tuple[Term, ...] = ()
    node_preferences: tuple[NodePreference, ...] = ()
    spread: Spread | None = None
    slices: Slices | None = None
    exclusive: bool = False
    group: str = ""
    after: tuple[str, ...] = ()
    gpu_memory: int = 0
    gpu_models: tuple[str, ...] = ()
    gpu_speeds: Mapping[str, float] = field(default_factory=dict)
    mig: str = ""
    budgets: tuple[str, ...] = ()
    step: int = 1
    resizable: bool = True
    neighbours: Neighbours | None = None

    def __post_init__(self) -> None:
        _name("pod_set.name", self.name)
        _amount("pod_set.min", self.min)
        _amounts("pod_set.request", self.request)
        _amount("pod_set.gpu", self.gpu)
        if GPU in self.request:
            raise _fault("pod_set.request[gpu]", self.request[GPU], "ask for GPUs in `gpu`")
        if self.gpu > WHOLE and self.gpu % WHOLE:
            raise _fault("pod_set.gpu", self.gpu, "give a share below 1000 or a multiple of 1000")
        _amount("pod_set.gpu_memory", self.gpu_memory)
        if self.gpu and self.gpu_memory:
            raise _fault("pod_set.gpu_memory", self.gpu_memory, "give `gpu` or `gpu_memory`, not both")
        if self.gpu_models and (len(set(self.gpu_models)) != len(self.gpu_models) or not all(self.gpu_models)):
            raise _fault("pod_set.gpu_models", self.gpu_models, "name each model once")
        for model, speed in self.gpu_speeds.items():
            where = f"pod_set.gpu_speeds[{model}]"
            if model not in self.gpu_models:
                raise _fault(where, speed, "name one of gpu_models")
            _number(where, speed)
            if speed <= 0:
                raise _fault(where, speed, "give more than 0")
        if self.mig:
            if self.gpu or self.gpu_memory:
                raise _fault("pod_set.mig", self.mig, "give only one of `gpu`, `gpu_memory` and `mig`")
            if not any(geometry.profile(self.mig) for geometry in GEOMETRIES.values()):
                raise _fault("pod_set.mig", self.mig, "name a profile as NVIDIA does, such as 3g.40gb")
        if self.gpu_models and not (self.gpu or self.gpu_memory or self.mig):
            raise _fault("pod_set.gpu_models", self.gpu_models, "ask for GPUs too: `gpu`, `gpu_memory` or `mig`")
        if len(self.tasks) > 1 and len(set(self.tasks)) != len(self.tasks):
            raise _fault("pod_set.tasks", self.tasks, "name each task once")
        if not all(self.node_affinity):
            raise _fault("pod_set.node_affinity", self.node_affinity, "give each term at least one demand")
        if isinstance(self.step, bool) or not isinstance(self.step, int) or self.step < 1:
            raise _fault("pod_set.step", self.step, "give a whole number from 1 on")
        if self.budgets and (not all(self.budgets) or len(set(self.budgets)) != len(self.budgets)):
            raise _fault("pod_set.budgets", self.budgets, "name each disruption budget once")
        if self.spread and self.slices:
            raise _fault("pod_set.slices", self.slices, "give `slices` or `spread`, not both")


STRATEGIES = (
    *("pack", "spread", "fragmentation"),
    *("best-fit", "dot-product", "fgd", "gpu-clustering", "gpu-packing", "random"),  # see rankings
)


@dataclass(frozen=True, slots=True)
class WorkloadSpec:
    """What is placed as one.

    Attributes:
        name: ``namespace/name``.
        queue: the queue that pays.
        priority: higher goes first in its queue and may preempt lower there.
        preemptible: False = never evicted for others, and only ever within quota.
        created: seconds; the older of equal priority goes first.
        pod_sets: its tasks; task names are unique across them.
        topology_required: label of the level of which one domain must hold all tasks.
        topology_preferred: label of the level of which one domain should.
        strategy: ``pack`` fills nodes up, ``spread`` takes the emptiest, ``fragmentation`` leaves on every
            node what typical tasks can use (see :class:`TaskMix`). The others are policies to compare with: see
            :mod:`heddle.engine.rankings`.
        broken_since: when a running gang fell below its minimum (kept by the caller; None = it did not).
        movable: it may be moved to another place so that others fit (only if preemptible too).
        awaited: tasks that do not exist at the moment but will come back (they are being moved): what is promised
            to them is kept, and they are not started before.
        walltime: seconds that it runs at most on GPUs of speed 1, counted from the start of its earliest running task
            (None = not known). Room is kept ahead of time only against ends that are known.
        user: who submitted it. All work of nobody known ("") counts as one submitter's.
        gang_grace: seconds that the rest of it may wait for replacements before it is evicted (None = as the budget
            says).
        separate_gpus: no two tasks of it that use a share of a GPU are on the same one.
        min_groups: how many groups of pod sets must run; those beyond are elastic, each as a whole. None = all must.
        checkpointed: when it last saved what it would resume from, in seconds; None = never. Work done since is what
            stopping it loses, which ranks victims.
        saves_every: seconds of running between checkpoints that it makes by itself, from the start of each task (None =
            not known): what it would resume from is then at most so old.
        gentle: nobody is evicted or moved for it; it takes room that is free, or that others leave anyway.
    """

    name: str
    queue: str
    pod_sets: tuple[PodSet, ...]
    priority: int = 0
    preemptible: bool = True
    created: float = 0.0
    topology_required: str | None = None
    topology_preferred: str | None = None
    strategy: str = "pack"
    broken_since: float | None = None
    walltime: float | None = None
    movable: bool = True
    awaited: frozenset[str] = frozenset()
    user: str = ""
    min_groups: int | None = None
    gang_grace: float | None = None
    separate_gpus: bool = False
    checkpointed: float | None = None
    saves_every: float | None = None
    gentle: bool = False

    def __post_init__(self) -> None:
        _name("workload.name", self.name)
        _name("workload.queue", self.queue)
        _number("workload.priority", self.priority)
        _number("workload.created", self.created)
        if self.broken_since is not None:
            _number("workload.broken_since", self.broken_since)
        if self.checkpointed is not None:
            _number("workload.checkpointed", self.checkpointed)
        if self.saves_every is not None:
            _number("workload.saves_every", self.saves_every)
            if self.saves_every <= 0:
                raise _fault("workload.saves_every", self.saves_every, "give more than 0 seconds, or None")
        if self.walltime is not None:
            _number("workload.walltime", self.walltime)
            if self.walltime <= 0:
                raise _fault("workload.walltime", self.walltime, "give more than 0 seconds, or None")
        if self.strategy not in STRATEGIES:
            raise _fault("workload.strategy", self.strategy, f"use one of {', '.join(STRATEGIES)}")
        if len(self.pod_sets) != 1:  # one by itself was looked at when it was made
            names = [pod_set.name for pod_set in self.pod_sets]
            if not names or len(set(names)) != len(names):
                raise _fault("workload.pod_sets", names, "give at least one, each with its own name")
            tasks = [task for pod_set in self.pod_sets for task in pod_set.tasks]
            if len(set(tasks)) != len(tasks):
                raise _fault("workload.pod_sets.tasks", tasks, "name each task once in a workload")
        if self.gang_grace is not None:
            _number("workload.gang_grace", self.gang_grace)
            if self.gang_grace < 0:
                raise _fault("workload.gang_grace", self.gang_grace, "give 0 seconds or more, or None")
        _check_order(self.pod_sets)
        if self.min_groups is not None:
            groups = len({pod_set.group for pod_set in self.pod_sets if pod_set.group})
            _amount("workload.min_groups", self.min_groups)
            if self.min_groups > groups:
                raise _fault(
                    "workload.min_groups", self.min_groups, f"give at most the {groups} groups of its pod sets"
                )


@dataclass(frozen=True, slots=True)
class Placement:
    """A task's place: a node, if it uses GPUs the ids of its devices there, and of a MIG instance what it is."""

    workload: str
    pod_set: str
    task: str
    node: str
    devices: tuple[str, ...] = ()
    instance: Instance | None = None


@dataclass(frozen=True, slots=True)
class TypicalTask:
    """What a task that usually arrives asks for, as far as fragmentation is concerned.

    Attributes:
        gpu: milli-devices, as in :class:`PodSet`.
        cpu: milli-CPUs.
        node_selector: (label, value) pairs that a node must have, for instance its GPU model.
        tolerations: taints that it accepts.
        node_affinity: a node must meet one of these terms.
    """

    gpu: int
    cpu: int = 0
    node_selector: tuple[tuple[str, str], ...] = ()
    tolerations: tuple[Toleration, ...] = ()
    node_affinity: tuple[Term, ...] = ()

    def __post_init__(self) -> None:
        _amount("typical_task.gpu", self.gpu)
        _amount("typical_task.cpu", self.cpu)
        if self.gpu > WHOLE and self.gpu % WHOLE:
            raise _fault("typical_task.gpu", self.gpu, "give a share below 1000 or a multiple of 1000")


@dataclass(frozen=True, slots=True)
class TaskMix:
    """The tasks by which the strategy ``fragmentation`` measures what is left free, each with its weight.

    Attributes:
        tasks: (task, weight) pairs; weights are whole numbers from 1 to 2^31, in any common unit.
    """

    tasks: tuple[tuple[TypicalTask, int], ...] = ()

    def __post_init__(self) -> None:
        seen = [task for task, _ in self.tasks]
        if len(set(seen)) != len(seen):
            raise _fault("task_mix.tasks", seen, "name each typical task once")
        for task, weight in self.tasks:
            if isinstance(weight, bool) or not isinstance(weight, int) or not 1 <= weight <= 2**31:
                raise _fault(f"task_mix.tasks[gpu={task.gpu}].weight", weight, "give a whole number from 1 to 2^31")
        if sum(weight for _, weight in self.tasks) > 2**32:
            raise _fault("task_mix.tasks", len(self.tasks), "divide the weights so that their sum is at most 2^32")
