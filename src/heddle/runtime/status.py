"""Writes a PodStatus from the states of its containers, as the kubelet does."""

from datetime import UTC, datetime

from heddle.api.meta import Condition, set_condition
from heddle.api.pod import ContainerStatus, Pod, PodStatus

WAITING_FOR_INIT = "PodInitializing"
HOST_IP = "127.0.0.1"


def now() -> str:
    """The time as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _stopped(status: ContainerStatus) -> bool:
    state = status.state
    return state.terminated is not None or (state.waiting is not None and status.last_state.terminated is not None)


def phase(pod: Pod, init: list[ContainerStatus], main: list[ContainerStatus]) -> str:
    """Pending, Running, Succeeded or Failed."""
    policy = pod.spec.restart_policy
    for status in init:
        ended = status.state.terminated
        if ended is None or ended.exit_code != 0:
            return "Failed" if ended is not None and policy == "Never" else "Pending"
    if not all(status.state.running is not None or _stopped(status) for status in main):
        return "Pending"
    if any(status.state.running is not None for status in main) or policy == "Always":
        return "Running"
    ends = [status.state.terminated for status in main]
    if all(end is not None and end.exit_code == 0 for end in ends):
        return "Succeeded"
    if policy == "Never" and all(end is not None for end in ends):
        return "Failed"
    return "Running"


def pod_status(
    pod: Pod,
    init: list[ContainerStatus],
    main: list[ContainerStatus],
    previous: PodStatus,
    *,
    start_time: str,
    message: str = "",
) -> PodStatus:
    """The whole status; `previous` lends its transition times and what others wrote."""
    where = phase(pod, init, main)
    finished = where in ("Succeeded", "Failed")
    initialized = all(s.state.terminated is not None and s.state.terminated.exit_code == 0 for s in init)
    unready = [status.name for status in main if not status.ready]
    time = now()
    if unready:
        if where == "Succeeded":
            reason, text = "PodCompleted", ""
        else:
            reason = "PodFailed" if where == "Failed" else "ContainersNotReady"
            text = f"containers with unready status: [{' '.join(unready)}]"
        ready = ("False", reason, text)
    else:
        ready = ("True", "", "")
    wanted = [
        ("PodScheduled", "True", "", ""),
        ("Initialized", "True", "", "") if initialized else ("Initialized", "False", "ContainersNotInitialized", ""),
        ("ContainersReady", *ready),
        ("Ready", *ready),
    ]
    conditions = previous.conditions
    for kind, value, reason, text in wanted:
        conditions = set_condition(
            conditions,
            Condition(type=kind, status=value, reason=reason, message=text, last_transition_time=time),
        )
    return PodStatus(
        phase=where,
        conditions=conditions,
        container_statuses=main,
        init_container_statuses=list(init),
        message=message,
        start_time=start_time,
        host_ip=HOST_IP,
        pod_ip="" if finished else HOST_IP,
    )
