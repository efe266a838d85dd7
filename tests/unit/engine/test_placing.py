from __future__ import annotations

from dataclasses import replace

import pytest
from worlds import bound, codes, node, settle, victims, work, world

from heddle.engine import (
    Device,
    NodeSpec,
    Placement,
    PodSet,
    QueueSpec,
    ReasonCode,
    State,
    Taint,
    Toleration,
    WorkloadSpec,
    explain,
    fair_shares,
    render,
    schedule,
)


def test_packing_fills_a_node_before_it_opens_the_next() -> None:
    state = world(node("n0"), node("n1"), a=8)
    state.set_workload(work("x/w", "a", 4))
    assert {place[1] for place in bound(schedule(state, 0))} == {"n0"}


def test_spreading_takes_the_emptiest_node_each_time() -> None:
    state = world(node("n0"), node("n1"), a=8)
    state.set_workload(work("x/w", "a", 4, strategy="spread"))
    nodes = [place[1] for place in bound(schedule(state, 0))]
    assert sorted(nodes) == ["n0", "n0", "n1", "n1"]


def test_ties_break_by_name_whatever_the_order_of_arrival() -> None:
    forward, backward = State(), State()
    for state, names in ((forward, ("n1", "n2", "n3")), (backward, ("n3", "n2", "n1"))):
        for name in names:
            state.set_node(node(name))
        state.set_queue(QueueSpec("a"))
        for name in names:
            state.set_workload(work(f"x/{name}", "a", 1, 3))
    assert schedule(forward, 0) == schedule(backward, 0)
    assert bound(schedule(forward, 0))[0][:2] == ("x/n1", "n1")


def test_a_share_goes_to_the_fullest_device_that_has_room() -> None:
    state = world(node("n0", 2), a=2)
    for name, share in (("x/a", 0.3), ("x/b", 0.5), ("x/c", 0.6), ("x/d", 0.2)):
        state.set_workload(work(name, "a", 1, share))
    places = {workload: devices for workload, _, devices in bound(schedule(state, 0))}
    assert places == {"x/a": ("g0",), "x/b": ("g0",), "x/c": ("g1",), "x/d": ("g0",)}


def test_whole_devices_come_from_one_link_group_then_one_numa_node() -> None:
    state = State()
    devices = tuple(Device(f"g{at}", at, link=at % 2, numa=at // 2) for at in range(4))
    state.set_node(NodeSpec("n0", {}, devices))
    state.set_queue(QueueSpec("a"))
    state.set_workload(work("x/w", "a", 1, 2))
    assert bound(schedule(state, 0)) == [("x/w", "n0", ("g0", "g2"))]


def test_selectors_taints_and_cordons_keep_work_away() -> None:
    state = world(node("n0", disk="fast"), a=16)
    state.set_node(replace(node("n1"), schedulable=False))
    state.set_node(replace(node("n2"), taints=(Taint("team", "x"),)))
    state.set_workload(work("x/slow", "a", 1, 1, selector={"disk": "slow"}))
    state.set_workload(work("x/big", "a", 2, 4))
    plan = schedule(state, 0)
    assert codes(plan, "x/slow") == ["NoNodeMatches"]
    assert not plan.verdicts["x/big"].admitted
    pods = PodSet("main", ("t0", "t1"), 2, {}, 4000, tolerations=(Toleration("team"),))
    state.set_workload(WorkloadSpec("x/big", "a", (pods,)))
    assert {place[1] for place in bound(schedule(state, 0))} == {"n0", "n2"}


def test_a_gang_takes_the_tightest_rack_that_holds_it() -> None:
    nodes = [node(f"n{at}", 4, zone="z", rack=f"r{at // 2}") for at in range(4)]
    state = world(*nodes, a=16)
    state.set_workload(work("x/one", "a", 2, 1, topology_required="rack"))
    settle(state, schedule(state, 0))
    state.set_workload(work("x/gang", "a", 6, 1, topology_required="rack"))
    assert {place[1] for place in bound(schedule(state, 0))} == {"n0", "n1"}


def test_racks_of_one_name_in_two_zones_are_two_racks() -> None:
    state = world(node("n0", 2, zone="z0", rack="r"), node("n1", 2, zone="z1", rack="r"), a=4)
    state.set_workload(work("x/w", "a", 4, 1, topology_required="rack"))
    assert codes(schedule(state, 0), "x/w") == ["Impossible"]


def test_what_is_known_to_be_impossible_is_told_of_each_ones_queue_until_nodes_change() -> None:
    state = world(node("n0", 4), a=8, b=8)
    for queue in "ab":
        state.set_workload(WorkloadSpec(f"x/{queue}", queue, (PodSet("p", ("t",), 1, {}, 8000),)))
    for _ in range(2):
        told = schedule(state, 0).verdicts
        assert [(told[name].reasons[0].code, told[name].reasons[0].queue) for name in ("x/a", "x/b")] == [
            (ReasonCode.IMPOSSIBLE, "a"),
            (ReasonCode.IMPOSSIBLE, "b"),
        ]
    state.set_node(replace(node("n1", 8), schedulable=False))
    assert codes(schedule(state, 0), "x/a")[0] == "NoRoom"
    state.remove_node("n1")
    assert codes(schedule(state, 0), "x/a") == ["Impossible"]


def test_several_pod_sets_start_together_or_not_at_all() -> None:
    state = world(node("n0", 2), a=8)
    heads = PodSet("head", ("h",), 1, {"cpu": 1000})
    workers = PodSet("worker", ("w0", "w1", "w2"), 3, {}, 1000)
    state.set_workload(WorkloadSpec("x/w", "a", (heads, workers)))
    assert not bound(schedule(state, 0))
    state.set_node(node("n1", 2))
    assert len(bound(schedule(state, 0))) == 4


def test_a_workload_waits_until_its_members_exist() -> None:
    state = world(a=4)
    pods = PodSet("main", ("t0",), 2, {}, 1000)
    state.set_workload(WorkloadSpec("x/w", "a", (pods,)))
    assert codes(schedule(state, 0), "x/w") == ["MembersMissing"]
    state.set_workload(WorkloadSpec("x/w", "a", (replace(pods, tasks=("t0", "t1")),)))
    assert len(bound(schedule(state, 0))) == 2


def test_queues_may_come_in_any_order_and_cycles_only_pend() -> None:
    state = world()
    state.set_workload(work("x/w", "leaf"))
    assert codes(schedule(state, 0), "x/w") == ["QueueNotFound"]
    state.set_queue(QueueSpec("leaf", "top"))
    assert codes(schedule(state, 0), "x/w") == ["QueueInactive"]
    state.set_queue(QueueSpec("top", "leaf"))
    assert codes(schedule(state, 0), "x/w") == ["QueueInactive"]
    state.set_queue(QueueSpec("top"))
    assert bound(schedule(state, 0))
    state.set_workload(work("x/v", "top"))
    assert codes(schedule(state, 0), "x/v") == ["QueueHasChildren"]


def test_a_queue_that_lost_its_parent_has_no_share_left_from_before() -> None:
    """Else what runs there would be safe from others until somebody starts the scheduler anew."""
    state = world(node("n0", 4), top=4, other=4)
    state.set_queue(QueueSpec("leaf", "top"))
    state.set_workload(work("x/runs", "leaf", 4, least=0))
    settle(state, schedule(state, 0))
    state.remove_queue("top")
    state.set_workload(work("x/owed", "other", 2))
    plan = schedule(state, 0)
    assert plan == schedule(State.rebuild(state.snapshot()), 0)
    assert victims(plan) == ["x/runs", "x/runs"]


def test_a_parent_that_comes_late_counts_what_already_runs() -> None:
    state = world()
    state.set_queue(QueueSpec("leaf", "top"))
    state.set_workload(work("x/w", "leaf"))
    state.bind(Placement("x/w", "main", "t0", "n0", ("g0",)))
    state.set_queue(QueueSpec("top", limit={"gpu": 1000}))
    state.set_workload(work("x/v", "leaf"))
    assert state.queue_usage()["top"]["gpu"] == 1000
    assert codes(schedule(state, 0), "x/v")[0] == "OverLimit"


@pytest.mark.parametrize(
    ("queue", "sizes", "expected"),
    [
        ({"quota": {"gpu": 0}, "limit": {"gpu": 2000}}, (3, 1), "OverLimit"),
        ({"quota": {"gpu": 8000}}, (9, 1), "Impossible"),
        ({"quota": {"gpu": 8000}}, (2, 4), "NoRoom"),
    ],
)
def test_the_verdict_names_what_stands_in_the_way(queue: dict, sizes: tuple[int, float], expected: str) -> None:
    state = world(node("n0", 4), node("n1", 4))
    state.set_queue(QueueSpec("a", **queue))
    state.set_queue(QueueSpec("other", quota={"gpu": 8000}))
    state.set_workload(work("x/here", "other", 1, 1, preemptible=False))
    settle(state, schedule(state, 0))
    state.set_workload(work("x/w", "a", *sizes))
    verdict = schedule(state, 0).verdicts["x/w"]
    assert verdict.reasons[0].code == expected
    assert verdict.position == 0
    assert all(render(reason) for reason in verdict.reasons)


def test_fixed_work_stays_within_quota_at_every_level() -> None:
    state = world(node("n0", 8))
    state.set_queue(QueueSpec("top", quota={"gpu": 2000}))
    state.set_queue(QueueSpec("a", "top", quota={"gpu": 4000}))
    state.set_workload(work("x/w", "a", 3, 1, preemptible=False))
    plan = schedule(state, 0)
    assert codes(plan, "x/w")[0] == "OverQuota"
    assert plan.verdicts["x/w"].reasons[0].queue == "top"


def test_fair_shares_follow_quota_then_weight() -> None:
    state = world(node("n0", 8))
    state.set_queue(QueueSpec("a", quota={"gpu": 2000}, weight=1))
    state.set_queue(QueueSpec("b", quota={"gpu": 0}, weight=2))
    state.set_workload(work("x/a", "a", 8, least=1))
    state.set_workload(work("x/b", "b", 8, least=1))
    shares = fair_shares(state)
    assert (shares["a"]["gpu"]["share"], shares["b"]["gpu"]["share"]) == (4000, 4000)
    assert shares["b"]["gpu"]["pending"] == 8000


def test_explain_finds_the_smallest_changes_by_trying_them() -> None:
    nodes = [node(f"n{at}", 4, zone=f"z{at // 2}", rack=f"r{at}") for at in range(4)]
    state = world(*nodes)
    state.set_queue(QueueSpec("a", quota={"gpu": 16_000}, limit={"gpu": 12_000}))
    state.set_workload(work("x/rack", "a", 6, 1, topology_required="rack"))
    found = {str(change.code): change for change in explain(state, 0, "x/rack").changes}
    assert found["FewerMembers"].fits == 4
    assert found["RelaxTopology"].queue == "zone"
    state.set_workload(work("x/rack", "a", 14, 1))
    found = {str(change.code): change for change in explain(state, 0, "x/rack").changes}
    assert found["RaiseLimit"].wanted == 14_000
    assert found["FewerMembers"].fits == 12
    state.set_workload(work("x/rack", "a", 1, 8))
    answer = explain(state, 0, "x/rack")
    assert [str(reason.code) for reason in answer.reasons] == ["Impossible"]
    assert {str(c.code): c for c in answer.changes}["FewerGpus"].free == 4000


def test_a_bad_delta_names_field_and_remedy_and_changes_nothing() -> None:
    state = world(a=4)
    state.set_workload(work("x/w", "a", 1, 1))
    state.set_workload(work("x/v", "a", 1, 1))
    state.bind(Placement("x/v", "main", "t0", "n0", ("g0",)))
    before = state.snapshot()
    for place in (
        Placement("x/u", "main", "t0", "n0", ("g1",)),
        Placement("x/w", "main", "t9", "n0", ("g1",)),
        Placement("x/w", "main", "t0", "n9", ("g1",)),
        Placement("x/w", "main", "t0", "n0", ("g9",)),
        Placement("x/w", "main", "t0", "n0", ()),
        Placement("x/w", "main", "t0", "n0", ("g0",)),
        Placement("x/v", "main", "t0", "n0", ("g1",)),
    ):
        with pytest.raises(ValueError, match=r": .*; "):
            state.bind(place)
    for call in (
        lambda: state.remove_node("n9"),
        lambda: state.remove_queue("z"),
        lambda: state.remove_workload("x/u"),
        lambda: state.release_task("x/w", "t0"),
        lambda: state.mark_releasing("x/w", "t0"),
        lambda: PodSet("p", ("t",), 1, {}, 1500),
        lambda: PodSet("p", ("t", "t"), 1),
        lambda: QueueSpec("q", quota={"gpu": -1}),
        lambda: QueueSpec("q", weight=float("nan")),
        lambda: NodeSpec("n", {"gpu": 1}),
    ):
        with pytest.raises(ValueError, match=r": .*; "):
            call()
    assert state.snapshot() == before


def test_a_node_that_goes_takes_its_tasks_and_its_promises() -> None:
    state = world(node("n0"), node("n1"), a=8)
    state.set_workload(work("x/w", "a", 2, 4))
    settle(state, schedule(state, 0))
    assert state.remove_node("n0") == (("x/w", "t0"),)
    plan = schedule(state, 0)
    assert not bound(plan)
    assert not plan.verdicts["x/w"].admitted
    assert state.set_node(node("n1", 2)) == (("x/w", "t1"),)


def test_verdicts_are_given_to_those_asked_for_and_those_something_is_done_about() -> None:
    state = world(node("n0", 4), a=8)
    for at in range(5):
        state.set_workload(work(f"w{at}", "a", 1, 2, created=float(at)))
    everyone = schedule(state, 0.0)
    some = schedule(state, 0.0, verdicts_of=["w3", "gone"])
    assert some.actions == everyone.actions
    assert some.verdicts == {name: everyone.verdicts[name] for name in ("w0", "w1", "w3")}
    assert some.verdicts["w3"].position == 1
    assert state.waiting() == [f"w{at}" for at in range(5)]
