"""The parts of a TrainingJob: its roles, or the one that a job of alike nodes is. Pure.

A pod belongs to a part by its index among the job's pods: the first role has the first of them, and so on. Parts start
in stages: those that wait for none at once, each other one a stage after the last of those that it waits for.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from heddle.api import quantity
from heddle.api.core import GPU_RESOURCE
from heddle.api.pod import Pod
from heddle.api.trainingjob import NodeSet, TrainingJob
from heddle.api.workload import POD_SET_LABEL, Workload

POD_SET = "nodes"
"""Pod set of a job with one group; of others each group is one, `group-0` and on, or each role, by its name."""


@dataclass(frozen=True, slots=True)
class Part:
    """Nodes of a job that are alike."""

    role: str
    """"" where the job has no roles."""
    nodes: NodeSet
    first: int
    """Index of its first pod."""
    count: int
    stage: int

    @property
    def indexes(self) -> range:
        """Of its pods."""
        return range(self.first, self.first + self.count)


def parts(job: TrainingJob) -> Sequence[Part]:
    """The parts of a job, in the order of its pods."""
    if not job.spec.roles:
        return (Part("", job.spec, 0, job.spec.size, 0),)
    found: list[Part] = []
    stages: dict[str, int] = {}
    first = 0
    for role in job.spec.roles:  # those that it waits for are listed before
        stages[role.name] = max((stages.get(name, 0) + 1 for name in role.after), default=0)
        found.append(Part(role.name, role, first, role.nodes, stages[role.name]))
        first += role.nodes
    return found


def part_at(job: TrainingJob, index: int) -> Part:
    """The part that the pod with this index belongs to."""
    return next(part for part in parts(job) if index in part.indexes)


def pod_names(job: TrainingJob, part: Part) -> Iterator[str]:
    """Names of the pods of a part, by index."""
    return (f"{_stem(job, part)}-{i}" for i in range(part.count))


def pod_name(job: TrainingJob, index: int) -> str:
    """Name of the pod with this index."""
    part = part_at(job, index)
    return f"{_stem(job, part)}-{index - part.first}"


def _stem(job: TrainingJob, part: Part) -> str:
    return f"{job.metadata.name}-{part.role}" if part.role else job.metadata.name


def set_of(job: TrainingJob, index: int) -> str:
    """Pod set of the pod with this index."""
    if job.spec.groups > 1:
        return f"group-{index // job.spec.nodes}"
    return part_at(job, index).role or POD_SET


def of_part(part: Part, pods: Iterable[Pod]) -> list[Pod]:
    """Those of a job's pods that are of a part."""
    return [pod for pod in pods if not part.role or pod.metadata.labels.get(POD_SET_LABEL) == part.role]


def last_stage(job: TrainingJob) -> int:
    """The stage in which the last of its parts starts."""
    return max(part.stage for part in parts(job))


def least(job: TrainingJob, workload: Workload, part: Part) -> int:
    """With how many nodes a part runs: its minimum, or what it started with where it does not resize."""
    minimum = part.nodes.minimum
    if job.spec.groups > 1:
        minimum *= job.spec.groups if job.spec.min_groups is None else job.spec.min_groups
    if part.nodes.resizable:
        return minimum
    return max(minimum, workload.status.admitted_counts.get(part.role or POD_SET, 0))


def joined(job: TrainingJob, part: Part, placed: list[Pod]) -> list[Pod]:
    """Those of the part's pods with a place that make whole groups, or whole steps beyond the minimum: others wait."""
    if job.spec.groups > 1:
        there = Counter(pod.metadata.labels.get(POD_SET_LABEL, "") for pod in placed)
        return [pod for pod in placed if there[pod.metadata.labels.get(POD_SET_LABEL, "")] == job.spec.nodes]
    minimum, step = part.nodes.minimum, part.nodes.node_step
    beyond = max(0, len(placed) - minimum)
    return placed[: minimum + beyond // step * step]


def members(job: TrainingJob, workload: Workload, placed: list[Pod], *, stage: int) -> list[Pod]:
    """Of the pods with a place, who makes up the world of the parts up to a stage; none if one of these has too few."""
    found: list[Pod] = []
    for part in parts(job):
        if part.stage <= stage:
            there = joined(job, part, of_part(part, placed))
            if len(there) < least(job, workload, part):
                return []
            found += there
    return found


def reached(job: TrainingJob, names: set[str]) -> int:
    """The stage that a world of pods with these names has come to."""
    if not job.spec.roles:
        return 0
    return max((part.stage for part in parts(job) if not names.isdisjoint(pod_names(job, part))), default=0)


def succeeded(job: TrainingJob, pods: dict[int, Pod], names: set[str]) -> bool:
    """Whether all pods in the world (of these names) that decide about it have succeeded."""
    policy = job.spec.success_policy
    for part in parts(job):
        if policy is not None and part.role not in policy.roles:
            continue
        there = [at for at, name in zip(part.indexes, pod_names(job, part), strict=True) if name in names]
        if not there or any(at not in pods or pods[at].status.phase != "Succeeded" for at in there):
            return False
    return True


def gpus(nodes: NodeSet) -> float:
    """GPUs of one node."""
    return quantity.milli(nodes.resources_per_node.get(GPU_RESOURCE, 0)) / 1000


def gpus_held(job: TrainingJob) -> float:
    """GPUs that the nodes hold which are active by the job's status."""
    status = job.status
    if not job.spec.roles:
        return status.active_nodes * gpus(job.spec)
    return sum(status.active_by_role.get(role.name, 0) * gpus(role) for role in job.spec.roles)
