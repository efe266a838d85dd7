"""What the objects of a TrainingJob say: how its pods are, and what its status is to say of it. Pure."""

from collections.abc import Iterable

from heddle.api.clock import to_seconds, to_text
from heddle.api.core import ConfigMap
from heddle.api.meta import Condition, set_condition
from heddle.api.pod import ContainerStateTerminated, Pod, run_generation
from heddle.api.trainingjob import TrainingJob, TrainingJobStatus
from heddle.api.workload import RESTART_ANNOTATION
from heddle.control.training import roles

_BACK_OFF_MOST, _BACK_OFF_RESET = 300.0, 600.0
_LINE = 300
_TROUBLES = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "CreateContainerError",
             "RunContainerError")  # fmt: skip


def by_role(job: TrainingJob, names: set[str]) -> dict[str, int]:
    """By role: its pods in a world of these names."""
    if not job.spec.roles:
        return {}
    return {part.role: len(names.intersection(roles.pod_names(job, part))) for part in roles.parts(job)}


def standing(job: TrainingJob, names: set[str]) -> tuple[str, str]:
    """Phase and news of a job of which all pods in its world (of these names) run or have succeeded."""
    if job.spec.roles:
        there = by_role(job, names)
        text = ", ".join(f"{role.name} {there[role.name]} of {role.nodes}" for role in job.spec.roles)
        if roles.reached(job, names) == roles.last_stage(job):
            return "Running", text
        return ("Restarting" if job.status.phase == "Restarting" else "Pending"), text
    text = f"{len(names)} of {job.spec.size} nodes"
    if job.spec.groups > 1:
        text += f", {len(names) // job.spec.nodes} of {job.spec.groups} groups"
    return "Running", text


def serves(pod: Pod, generation: str, *, restarted: bool) -> bool:
    """Whether a pod's program runs, or has ended well, in the present world."""
    if pod.status.phase == "Succeeded":
        return True
    told = pod.metadata.annotations.get(RESTART_ANNOTATION, "")
    if pod.metadata.deletion_timestamp or (restarted and told != generation):
        return False
    return pod.ready and all(run_generation(one.container_id, told) == told for one in pod.status.container_statuses)


def left(limit: int | None, mine: dict[int, Pod], now: float) -> float | None:
    """Seconds until the job's walltime is over, counted from its earliest pod; None where that says nothing."""
    if limit is None:
        return None
    started = min((p.scheduled_at for p in mine.values() if p.bound), default=None)
    return None if started is None else started + limit - now


def back_off(job: TrainingJob, now: float) -> float:
    """Seconds until the job may restart again: at once, then after 1, 2, 4 ... seconds, 5 minutes at most.

    A restart that held for ten minutes begins anew, as with the kubelet's back-off.
    """
    last = to_seconds(job.status.last_restart_time)
    if not last or now - last > _BACK_OFF_RESET:
        return 0.0
    return last + min(_BACK_OFF_MOST, 2.0 ** (job.status.restarts - 1)) - now


def names(pods: Iterable[Pod]) -> set[str]:
    """Names of pods."""
    return {pod.metadata.name for pod in pods}


def members_of(world: ConfigMap | None) -> list[str]:
    """Who is in a world: `name=uid`, by rank."""
    return _listed(world, "members")


def names_in(members: Iterable[str]) -> set[str]:
    """Names of the pods of a world."""
    return {member.partition("=")[0] for member in members}


def last_line(text: str) -> str:
    """What a message ends with: it may be the end of a log."""
    return text.strip().rpartition("\n")[2].strip()[:_LINE]


def trouble(pod: Pod) -> str:
    """Why a container of a pod cannot start; that it waits for its rank is none."""
    for container in pod.status.container_statuses:
        waiting = container.state.waiting
        if waiting is not None and waiting.reason in _TROUBLES:
            return f"{pod.metadata.name}: {waiting.reason}: {last_line(waiting.message)}"
    return ""


def restarted(world: ConfigMap | None) -> set[str]:
    """Pods whose processes the present generation restarts: their names, or where they are made anew, `name=uid`."""
    return set(_listed(world, "restart"))


def _listed(world: ConfigMap | None, key: str) -> list[str]:
    return [each for each in world.data.get(key, "").split(",") if each] if world else []


def failure(pod: Pod) -> ContainerStateTerminated | None:
    """How a container of the pod failed, if it did and has not been started again since."""
    for container in pod.status.container_statuses:
        end = container.state.terminated
        if end is None and container.state.waiting and container.state.waiting.reason == "CrashLoopBackOff":
            end = container.last_state.terminated
        if end is not None and end.exit_code != 0:
            return end
    return None


def conditions(job: TrainingJob, status: TrainingJobStatus, now: float) -> list[Condition]:
    """The conditions of a job whose status is to be this one."""
    found = list(status.conditions)
    for type_, phase in (("Running", "Running"), ("Complete", "Succeeded"), ("Failed", "Failed")):
        holds = status.phase == phase
        known = any(c.type == type_ for c in found)
        if not (holds or known):
            continue
        new = Condition(
            type=type_,
            status="True" if holds else "False",
            reason=status.phase,
            message=status.message if holds else "",
            last_transition_time=to_text(now),
            observed_generation=job.metadata.generation,
        )
        found = set_condition(found, new)
    return found
