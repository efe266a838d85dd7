"""Who may submit to a queue, and who may claim priority or non-preemptibility there."""

from heddle.api.queue import Queue, Subject


def refusal(queue: Queue, *, user: str, groups: tuple[str, ...], priority: int, preemptible: bool) -> str:
    """Why this user may not submit such work to the queue; "" when they may.

    Work without a user (made by heddle itself, or before users were recorded) is not refused.
    """
    access = queue.spec.access
    name = queue.metadata.name
    if not user or _among(access.privileged, user, groups):
        return ""
    if access.submitters and not _among(access.submitters, user, groups):
        return f"user {user} may not submit to queue {name}: its spec.access.submitters does not name them"
    if access.max_priority is not None and priority > access.max_priority:
        return (
            f"user {user} may claim a priority of at most {access.max_priority} in queue {name} "
            f"(spec.access.maxPriority), not {priority}"
        )
    if not preemptible and access.non_preemptible == "Privileged":
        return f"user {user} may not submit work to queue {name} that is not preemptible (spec.access.nonPreemptible)"
    return ""


def _among(subjects: list[Subject], user: str, groups: tuple[str, ...]) -> bool:
    return any(s.name == user if s.kind == "User" else s.name in groups for s in subjects)
