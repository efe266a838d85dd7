"""What `explain` advises works when it is done, and one step less of it does not."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
from changes import changes, comes, starts
from test_invariants import AMOUNTS, NOW, TREE, WISHES, node, random_workload
from worlds import FUZZ, random_policy, with_policy, work, world
from worlds import node as plain_node

from heddle.engine import Evict, PodSet, QueueSpec, State, WorkloadSpec, explain, render, schedule
from heddle.engine.forward import get_ready


def world_at_rest(seed: int) -> State:
    """A crowded world in which nothing moves any more; every fifth is of one make, so that rare changes occur too."""
    draw = random.Random(seed)
    make = ("plain", "policies", "topology", "borrowing", "arranged")[seed % 5]
    state = State()
    state.set_topology(["zone", "rack"])
    for at in range(draw.randint(2, 4)):
        state.set_node(node(at, draw.choice([0, 2, 4, 4, 8]), draw.choice([4000, 8000]), at))
    for name, parent in TREE:
        free = make in ("topology", "arranged")
        quota = None if free else draw.choice(AMOUNTS[1:] if make == "borrowing" else AMOUNTS)
        limit = None if free else draw.choice([None, None, draw.choice(AMOUNTS)])
        spec = QueueSpec(name, parent, {"gpu": quota}, {"gpu": limit}, draw.choice([0, 1, 2]), draw.choice([0, 0, 1]))
        policy = random_policy(draw) if make == "policies" else {}
        if make == "policies" and draw.random() < 0.5:
            policy = {"ordering": "StrictFIFO"}
        if make == "borrowing":
            kind = draw.choice(["borrowing_limit", "lending_limit"])
            policy = {kind: draw.choice([0, 1000, 2000])}
        state.set_queue(with_policy(spec, policy))
    for made in range(draw.randint(2, 9)):
        spec_of_work = replace(random_workload(draw, made), walltime=None)
        if make in ("topology", "arranged"):
            one_gang = tuple(replace(pods, group="", after=()) for pods in spec_of_work.pod_sets)
            spec_of_work = replace(spec_of_work, min_groups=None, pod_sets=one_gang)
        if make == "topology":
            names = tuple(f"t{at}" for at in range(draw.randint(1, 6)))
            gang = (PodSet("p", names, len(names), {}, draw.choice([500, 1000, 1000, 2000])),)
            spec_of_work = replace(spec_of_work, pod_sets=gang, topology_required=draw.choice(["rack", "zone"]))
        if make == "arranged":
            wish = draw.choice(WISHES[1:])
            sets = tuple(replace(pods, **wish) for pods in spec_of_work.pod_sets if not (pods.spread or pods.slices))
            spec_of_work = replace(spec_of_work, pod_sets=sets or spec_of_work.pod_sets)
        state.set_workload(spec_of_work)
    for _ in range(12):
        plan = schedule(state, NOW)
        for action in plan.actions:
            state.apply(action, NOW)
        for action in plan.actions:
            if isinstance(action, Evict):
                state.release_task(action.workload, action.task)
        get_ready(state)  # who gets ready later may take what is promised to others by then, as who arrives
    return state


def advice_holds(seed: int) -> Counter[str]:
    """Carries out every change that is named to anyone in one world; returns how many of each kind there were."""
    state = world_at_rest(seed)
    seen: Counter[str] = Counter()
    before = state.snapshot()
    for name in sorted(state.works):
        for said in explain(state, NOW, name).changes:
            told, less = changes(state, name, said)
            seen[str(said.code)] += 1
            assert any(starts(state, name, change, NOW) for change in told), f"{name} does not start with {said}"
            enough = any(comes(state, name, change, NOW) for change in less)
            assert not enough, f"{name}: less than {said} would do"
            # what others' moves of the next cycle set free is not foreseen: counted, so that it is seen to be rare
            seen["less, by a chain"] += any(starts(state, name, change, NOW) for change in less)
    assert state.snapshot() == before, "explain() changed the state"
    return seen


@pytest.mark.parametrize("seed", range(FUZZ * 2))
def test_what_explain_advises_starts_the_workload_and_less_does_not(seed: int) -> None:
    advice_holds(seed)


def test_room_that_another_would_take_is_not_promised_by_explain() -> None:
    """A higher limit would serve whoever is first in line; the second is told what serves both."""
    state = world(plain_node("n0", 8))
    state.set_queue(QueueSpec("a", limit={"gpu": 0}))
    state.set_workload(work("x/first", "a", 2, created=0))
    state.set_workload(work("x/second", "a", 2, created=1))
    wanted = {name: explain(state, 0, name).changes[-1].wanted for name in ("x/first", "x/second")}
    assert wanted == {"x/first": 2000, "x/second": 4000}


def test_nobody_is_asked_to_leave_in_vain_by_explain() -> None:
    state = world(plain_node("n0", 4), a=4)
    for name, priority in (("x/one", 0), ("x/two", 0)):
        state.set_workload(work(name, "a", 1, 2, priority=priority, preemptible=False))
    for action in schedule(state, 0).actions:
        state.apply(action)
    state.set_workload(work("x/late", "a", 1, 2))
    [leave] = [change for change in explain(state, 0, "x/late").changes if str(change.code) == "OthersLeave"]
    assert len(leave.holders) == 1


def test_someone_ahead_who_would_take_the_room_means_no_advice() -> None:
    state = world(plain_node("n0", 2), a=4)
    state.set_workload(work("x/runs", "a", 1, 2, priority=9))
    for action in schedule(state, 0).actions:
        state.apply(action)
    state.set_workload(work("x/ahead", "a", 1, 2, priority=5))
    state.set_workload(work("x/behind", "a", 1, 2))
    said = {name: [str(change.code) for change in explain(state, 0, name).changes] for name in ("x/ahead", "x/behind")}
    assert "OthersLeave" in said["x/ahead"]
    assert "OthersLeave" not in said["x/behind"]


def test_the_fewest_nodes_that_would_have_to_come_back_are_named() -> None:
    nodes = [plain_node(f"n{at}", 8, kind="b" if at == 1 else "a") for at in range(5)]
    state = world(*(replace(spec, schedulable=spec.name == "n0") for spec in nodes), q=None)
    state.set_workload(work("w", "q", 3, 8, selector={"kind": "a"}))
    advice = {str(change.code): change for change in explain(state, 0.0, "w").changes}
    assert [name for name, _ in advice["NodesBack"].holders] == ["n2", "n3"]
    for spec, enough in ((nodes[2], False), (nodes[3], True)):
        state.set_node(spec)
        assert explain(state, 0.0, "w").admitted is enough


def test_fewer_gpus_are_those_of_the_pod_set_that_lacks_them_not_of_the_first() -> None:
    state = world(plain_node("n0", 2), a=4)
    torn = PodSet("cut", ("c0",), 0, mig="2g.10gb", step=2)  # half a step never starts
    sets = (torn, PodSet("whole", ("w0",), 0, gpu=4000))
    state.set_workload(WorkloadSpec("x/both", "a", sets))
    [fewer] = [change for change in explain(state, 0, "x/both").changes if str(change.code) == "FewerGpus"]
    assert (fewer.wanted, fewer.free, fewer.pod_set) == (4000, 2000, "whole")
    assert render(fewer) == "2 GPUs a task of whole instead of 4 GPUs would start now"


def test_smallest_is_meant_of_the_coming_cycle() -> None:
    """One licence less sets off a preemption for somebody else here, which frees what serves who asks a cycle later."""
    advice_holds(109_020)


def test_work_that_nobody_may_stop_is_told_what_it_could_use_if_others_might() -> None:
    state = world(plain_node("n0", 8), a=4)
    state.set_workload(work("x/w", "a", 8, preemptible=False))
    found = {str(change.code): change for change in explain(state, 0, "x/w").changes}
    assert found["AllowPreemption"].queue == "a"
    assert render(found["AllowPreemption"]).endswith("more than the quota of queue a")
    state.set_workload(work("x/w", "a", 8))
    assert schedule(state, 0).verdicts["x/w"].admitted
    state.set_queue(QueueSpec("a", quota={"gpu": 4000}, limit={"gpu": 6000}))
    state.set_workload(work("x/w", "a", 8, preemptible=False))
    assert "AllowPreemption" not in {str(change.code) for change in explain(state, 0, "x/w").changes}


def test_a_quota_that_would_make_others_leave_is_named() -> None:
    state = world(plain_node("n0", 8), plain_node("n1", 8), a=8, b=4)
    for at in range(2):
        state.set_workload(work(f"x/r{at}", "a", 1, 8, created=float(at)))
    for action in schedule(state, 0).actions:
        state.apply(action, 0)
    state.set_workload(work("x/w", "b", 1, 8, preemptible=False, created=9))
    raised = next(change for change in explain(state, 0, "x/w").changes if str(change.code) == "RaiseQuota")
    assert (raised.queue, raised.cap, raised.wanted) == ("b", 4000, 8000)
