"""Counters: things that no node has, such as floating licences, capped in the whole cluster."""

from __future__ import annotations

from dataclasses import replace

import pytest
from worlds import bound, codes, node, settle, work, world

from heddle.engine import (
    Bind,
    NodeSpec,
    Placement,
    PodSet,
    QueueSpec,
    Reserve,
    State,
    WorkloadSpec,
    explain,
    fair_shares,
    render,
    schedule,
)

MATLAB = "counter:matlab"


def seats(state: State, count: int) -> State:
    state.set_counters({MATLAB: count})
    return state


def user(name: str, queue: str, seats: int = 1, tasks: int = 1, gpus: float = 1, **more: object) -> WorkloadSpec:
    spec = work(name, queue, tasks, gpus, **more)
    return replace(spec, pod_sets=(replace(spec.pod_sets[0], request={MATLAB: seats}),))


def started(state: State, now: float = 0) -> list[str]:
    return [name for name, _, _ in bound(schedule(state, now))]


def test_licences_are_capped_in_the_whole_cluster_and_are_on_no_node() -> None:
    state = seats(world(node("n0"), node("n1"), a=8, b=8), 3)
    for name, queue in (("x/1", "a"), ("x/2", "b"), ("x/3", "a"), ("x/4", "b")):
        state.set_workload(user(name, queue))
    assert len(started(state)) == 3


def test_the_verdict_names_the_counter_and_who_holds_it_and_what_would_help() -> None:
    state = seats(world(a=8), 2)
    state.set_workload(user("x/first", "a", 2))
    settle(state, schedule(state, 0))
    state.set_workload(user("x/second", "a"))
    reason = schedule(state, 0).verdicts["x/second"].reasons[0]
    assert (str(reason.code), reason.cap, reason.used, reason.wanted) == ("OverCounter", 2, 2, 1)
    assert (
        render(reason)
        == "the cluster has 2 matlab: 2 matlab in use, 1 matlab more asked for; held by x/first (2 matlab)"
    )
    changes = {str(change.code): change for change in explain(state, 0, "x/second").changes}
    assert render(changes["RaiseCounter"]) == "3 matlab in the cluster instead of 2 matlab would admit it"
    assert changes["OthersLeave"].holders == (("x/first", 1000),)
    seats(state, 3)
    assert started(state) == ["x/second"]


def test_a_counter_that_nobody_set_is_nil() -> None:
    state = world(a=8)
    state.set_workload(user("x/w", "a"))
    assert codes(schedule(state, 0), "x/w")[0] == "OverCounter"


def test_a_gang_gets_all_its_licences_or_none() -> None:
    state = seats(world(a=8), 3)
    state.set_workload(user("x/gang", "a", tasks=4))
    assert not started(state)
    assert [c.fits for c in explain(state, 0, "x/gang").changes if c.code == "FewerMembers"] == [3]


def test_preemption_frees_licences_and_takes_no_more_than_it_needs() -> None:
    state = seats(world(node("n0", 8), a=8), 1)
    state.set_workload(user("x/holder", "a"))
    state.set_workload(work("x/other", "a"))
    settle(state, schedule(state, 0))
    state.set_workload(user("x/high", "a", priority=5))
    plan = schedule(state, 0)
    assert [action.workload for action in plan.actions if not isinstance(action, Bind | Reserve)] == ["x/holder"]
    assert codes(plan, "x/high") == ["WaitingForRelease"]
    assert plan.verdicts["x/high"].reasons[0].tasks == 1
    settle(state, plan, release=False)
    assert not started(state), "the licence is still in use while its holder leaves"
    state.set_workload(user("x/late", "a"))
    assert not started(state), "the licence that falls free is promised"
    state.release_task("x/holder", "t0")
    assert started(state) == ["x/high"]


def test_a_queue_that_is_owed_licences_reclaims_them() -> None:
    state = seats(world(node("n0", 8)), 2)
    for name in ("a", "b"):
        state.set_queue(QueueSpec(name, quota={"gpu": 4000, MATLAB: 1}))
    for at, name in enumerate(("x/1", "x/2")):
        state.set_workload(user(name, "a", created=float(at)))
    settle(state, schedule(state, 0))
    state.set_workload(user("x/owed", "b"))
    evicted = {a.workload: str(a.reason.code) for a in schedule(state, 0).actions if not isinstance(a, Bind | Reserve)}
    assert evicted == {"x/2": "Reclaimed"}
    assert fair_shares(state)["b"][MATLAB]["share"] == 1


def test_what_runs_keeps_its_licences_when_there_are_fewer() -> None:
    state = seats(world(a=8), 2)
    state.set_workload(user("x/w", "a", 2))
    settle(state, schedule(state, 0))
    seats(state, 1)
    assert schedule(state, 0).actions == ()
    state.remove_workload("x/w")
    state.set_workload(user("x/next", "a"))
    assert started(state) == ["x/next"]


def test_tasks_whose_queue_is_gone_hold_their_licences() -> None:
    state = seats(world(a=8, b=8), 1)
    state.set_workload(user("x/w", "a"))
    settle(state, schedule(state, 0))
    state.remove_queue("a")
    state.set_workload(user("x/next", "b"))
    reason = schedule(state, 0).verdicts["x/next"].reasons[0]
    assert (str(reason.code), reason.holders) == ("OverCounter", (("x/w", 1),))


def test_room_kept_ahead_of_time_counts_licences() -> None:
    state = seats(world(node("n0", 8), a=None), 2)
    state.set_workload(user("x/runs", "a", 1, priority=9, walltime=100.0))
    settle(state, schedule(state, 0))
    state.set_workload(user("x/both", "a", 2, priority=1, preemptible=False))
    state.set_workload(user("x/long", "a", 1, walltime=500.0))
    state.set_workload(work("x/without", "a", walltime=500.0))
    plan = schedule(state, 0)
    assert [name for name, _, _ in bound(plan)] == ["x/without"]
    assert codes(plan, "x/long") == ["KeptForOthers"]
    assert "RoomKept" in codes(plan, "x/both")
    state.set_workload(user("x/short", "a", 1, walltime=50.0))
    assert started(state) == ["x/short", "x/without"]


def test_others_move_together_where_only_places_are_scattered() -> None:
    state = seats(world(node("n0", 2), node("n1", 2), a=None), 1)
    for at, name in enumerate(("x/1", "x/2")):
        state.set_workload(work(name, "a"))
        state.bind(Placement(name, "main", "t0", f"n{at}", ("g0",)))
    state.set_workload(user("x/w", "a", gpus=2))
    assert any(isinstance(a, Reserve) and a.workload == "x/w" for a in schedule(state, 0).actions)


@pytest.mark.parametrize("counts", [{"matlab": 1}, {"counter:": 1}, {MATLAB: -1}, {MATLAB: 1.5}])
def test_bad_counts_are_refused_and_change_nothing(counts: dict[str, int]) -> None:
    state = seats(world(a=8), 1)
    with pytest.raises(ValueError, match="counters"):
        state.set_counters(counts)
    assert state.snapshot().counters == {MATLAB: 1}


def test_no_node_may_offer_what_is_counted_in_the_cluster() -> None:
    with pytest.raises(ValueError, match="set_counters"):
        NodeSpec("n0", {MATLAB: 3})


def test_a_task_that_asks_for_nothing_but_a_licence_goes_to_some_node() -> None:
    state = seats(world(a=8), 1)
    state.set_workload(WorkloadSpec("x/w", "a", (PodSet("main", ("t0", "t1"), 1, {MATLAB: 1}),)))
    plan = schedule(state, 0)
    assert len(bound(plan)) == 1
    assert plan.verdicts["x/w"].admitted
