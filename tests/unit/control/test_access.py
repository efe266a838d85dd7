"""Who may submit to a queue is the queue's to say."""

from heddle.api.meta import ObjectMeta
from heddle.api.queue import Queue, QueueAccess, QueueSpec, Subject
from heddle.control.access import refusal


def queue(**access: object) -> Queue:
    return Queue(metadata=ObjectMeta(name="q"), spec=QueueSpec(access=QueueAccess(**access)))  # type: ignore[arg-type]


def ask(q: Queue, user: str = "ann", groups: tuple[str, ...] = (), priority: int = 0, preemptible: bool = True) -> str:
    return refusal(q, user=user, groups=groups, priority=priority, preemptible=preemptible)


def test_a_queue_without_submitters_is_everyones() -> None:
    assert ask(queue()) == ""


def test_only_named_users_and_groups_may_submit() -> None:
    q = queue(submitters=[Subject(kind="User", name="bob"), Subject(kind="Group", name="ml")])
    assert "ann may not submit to queue q" in ask(q)
    assert ask(q, "bob") == ""
    assert ask(q, "ann", ("ml",)) == ""


def test_priority_and_non_preemptibility_can_be_kept_for_the_privileged() -> None:
    q = queue(max_priority=10, non_preemptible="Privileged", privileged=[Subject(kind="Group", name="ops")])
    assert ask(q, priority=10) == ""
    assert "at most 10" in ask(q, priority=11)
    assert "not preemptible" in ask(q, preemptible=False)
    assert ask(q, "ann", ("ops",), priority=99, preemptible=False) == ""
