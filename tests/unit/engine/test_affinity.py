"""Node affinity and taints: which nodes a pod set must, may and would rather have."""

from __future__ import annotations

from dataclasses import replace

import pytest
from worlds import bound, codes, node, settle, work, world

from heddle.engine import (
    LabelMatch,
    NodePreference,
    PodSet,
    State,
    Taint,
    TaskMix,
    Term,
    Toleration,
    TypicalTask,
    WorkloadSpec,
    explain,
    render,
    schedule,
)


def wishing(tasks: int = 1, **wishes: object) -> WorkloadSpec:
    names = tuple(f"t{at}" for at in range(tasks))
    return WorkloadSpec("x/w", "a", (PodSet("main", names, tasks, {}, 1000, **wishes),))  # type: ignore[arg-type]


def places(state: State, spec: WorkloadSpec) -> set[str]:
    state.set_workload(spec)
    return {place[1] for place in bound(schedule(state, 0))}


@pytest.mark.parametrize(
    ("match", "admitted"),
    [
        (LabelMatch("kind", "In", ("a", "b")), {"n0", "n1"}),
        (LabelMatch("kind", "NotIn", ("a", "b")), {"n2", "n3"}),
        (LabelMatch("kind", "Exists"), {"n0", "n1", "n2"}),
        (LabelMatch("kind", "DoesNotExist"), {"n3"}),
        (LabelMatch("age", "Gt", ("9",)), {"n1"}),
        (LabelMatch("age", "Lt", ("9",)), {"n2"}),
    ],
)
def test_each_operator_admits_what_kubernetes_admits(match: LabelMatch, admitted: set[str]) -> None:
    nodes = (node("n0", 1, kind="a", age="9"), node("n1", 1, kind="b", age="10"), node("n2", 1, kind="c", age="-1"))
    state = world(*nodes, node("n3", 1, age="old"), a=9)
    assert places(state, wishing(len(admitted), node_affinity=((match,),))) == admitted
    state.set_workload(wishing(len(admitted) + 1, node_affinity=((match,),)))
    assert codes(schedule(state, 0), "x/w") == ["Impossible"]


def test_one_of_several_terms_is_enough_but_all_of_a_term_must_hold() -> None:
    state = world(*(node(f"n{at}", 1, kind="ab"[at % 2], age=str(at)) for at in range(4)), a=9)
    first: Term = (LabelMatch("kind", "In", ("a",)), LabelMatch("age", "Gt", ("1",)))
    second: Term = (LabelMatch("age", "In", ("3",)),)
    assert places(state, wishing(2, node_affinity=(first, second))) == {"n2", "n3"}
    assert places(state, wishing(1, node_affinity=(second, first), node_selector={"kind": "a"})) == {"n2"}


def test_preferred_nodes_come_before_fuller_ones_and_more_weight_before_less() -> None:
    state = world(node("n0", 2), node("n1", 4, kind="a"), node("n2", 4, kind="a", disk="fast"), a=99)
    kind = NodePreference(10, (LabelMatch("kind", "In", ("a",)),))
    disk = NodePreference(1, (LabelMatch("disk", "Exists"),))
    assert places(state, wishing()) == {"n0"}
    assert places(state, wishing(node_preferences=(kind,))) == {"n1"}
    assert places(state, wishing(node_preferences=(kind, disk))) == {"n2"}
    assert places(state, wishing(9, node_preferences=(kind, disk))) == {"n0", "n1", "n2"}
    settle(state, schedule(state, 0))
    state.set_node(replace(node("n0", 2, kind="a", disk="fast"), name="n3"))
    state.set_workload(replace(wishing(node_preferences=(kind, disk)), name="x/v"))
    assert bound(schedule(state, 0))[0][1] == "n3"


def test_soft_taints_make_a_node_the_last_choice_and_hard_ones_none() -> None:
    state = world(node("n0", 1), node("n1", 2), node("n2", 4), a=99)
    state.set_node(replace(node("n0", 1), taints=(Taint("old", effect="PreferNoSchedule"),)))
    state.set_node(replace(node("n1", 2), taints=(Taint("team", "x", "NoExecute"),)))
    assert places(state, wishing()) == {"n2"}
    assert places(state, wishing(5)) == {"n0", "n2"}
    assert places(state, wishing(tolerations=(Toleration("old"),))) == {"n0"}
    assert places(state, wishing(2, tolerations=(Toleration("team", "x", "NoExecute"),))) == {"n1"}
    assert places(state, wishing(7, tolerations=(Toleration("team"), Toleration("")))) == {"n0", "n1", "n2"}
    for toleration in (Toleration("team", "y"), Toleration("team", "x", "NoSchedule"), Toleration("", "y")):
        assert places(state, wishing(5, tolerations=(toleration,))) == {"n0", "n2"}


def test_the_verdict_says_that_only_matching_nodes_are_full() -> None:
    state = world(node("n0", 2, kind="a"), node("n1", 4), a=99)
    state.set_workload(work("x/here", "a", 1, 1, selector={"kind": "a"}, preemptible=False))
    settle(state, schedule(state, 0))
    state.set_workload(wishing(2, node_affinity=((LabelMatch("kind", "Exists"),),)))
    plan = schedule(state, 0)
    reason = plan.verdicts["x/w"].reasons[0]
    assert render(reason).startswith("1 of 2 tasks fit now on the 1 node that its node selector")
    assert (str(reason.code), reason.free) == ("NoMatchingRoom", 1000)
    assert "AnyNode" in {str(change.code) for change in explain(state, 0, "x/w").changes}


def test_typical_tasks_count_only_where_they_may_run() -> None:
    """Nodes of kind b are of no use to the usual pairs, so the single goes there."""
    state = world(node("n0", 2, kind="a"), node("n1", 2, kind="b"), a=99)
    pair = TypicalTask(2000, node_affinity=((LabelMatch("kind", "In", ("a",)),),))
    state.set_task_mix(TaskMix(((pair, 1),)))
    state.set_workload(work("x/w", "a", 1, 1, strategy="fragmentation"))
    assert bound(schedule(state, 0))[0][1] == "n1"


@pytest.mark.parametrize(
    "make",
    [
        lambda: LabelMatch("", "Exists"),
        lambda: LabelMatch("a", "Is", ("b",)),
        lambda: LabelMatch("a", "In"),
        lambda: LabelMatch("a", "Exists", ("b",)),
        lambda: LabelMatch("a", "Gt", ("1", "2")),
        lambda: LabelMatch("a", "Lt", ("x",)),
        lambda: NodePreference(0, (LabelMatch("a", "Exists"),)),
        lambda: NodePreference(1, ()),
        lambda: wishing(node_affinity=((),)),
        lambda: Taint("a", effect="NoWork"),
        lambda: Toleration("a", effect="NoWork"),
    ],
)
def test_a_bad_demand_names_field_and_remedy(make) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=r": .*; "):
        make()
