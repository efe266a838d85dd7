"""Tasks of one pod set apart (spread) and together (slices)."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from worlds import bound, codes, node, settle, world

from heddle.engine import NODE, NodeSpec, PodSet, Slices, Spread, State, WorkloadSpec, explain, render, schedule
from heddle.engine.placement import Placer
from heddle.engine.slices import allot, divide


def racks(*gpus: int, nodes: int = 1, blocks: int = 99) -> list[NodeSpec]:
    """A rack per number, of nodes with that many GPUs; so many racks make a zone."""
    return [
        node(f"n{rack}{at}", size, zone=f"z{rack // blocks}", rack=f"r{rack}")
        for rack, size in enumerate(gpus)
        for at in range(nodes)
    ]


def gang(tasks: int, *, least: int | None = None, gpu: int = 1000, name: str = "x/w", **wish: object) -> WorkloadSpec:
    required = wish.pop("required", None)
    names = tuple(f"t{at:03}" for at in range(tasks))
    pods = PodSet("main", names, tasks if least is None else least, {}, gpu, **wish)  # type: ignore[arg-type]
    return WorkloadSpec(name, "a", (pods,), topology_required=required)  # type: ignore[arg-type]


def spots(state: State, spec: WorkloadSpec, level: str = "rack") -> list[int]:
    """How many tasks each domain got, by name of the domain."""
    state.set_workload(spec)
    held: Counter[str] = Counter()
    for _, name, _ in bound(schedule(state, 0)):
        found = state.nodes.specs[state.nodes.row[name]]
        assert found
        held[name if level == NODE else found.labels[level]] += 1
    return [count for _, count in sorted(held.items())]


def test_no_two_tasks_on_one_node_or_in_one_rack() -> None:
    state = world(*racks(4, 4, nodes=2), a=99)
    assert spots(state, gang(4), NODE) == [4]
    assert spots(state, gang(4, spread=Spread(NODE, most=1)), NODE) == [1, 1, 1, 1]
    assert spots(state, gang(4, spread=Spread("rack", most=2))) == [2, 2]
    assert spots(state, gang(5, spread=Spread(NODE, most=1))) == []
    verdict = schedule(state, 0).verdicts["x/w"].reasons
    assert render(verdict[0]).endswith(f"4 of 5 tasks fit, 1 at most in one {NODE}")
    assert str(verdict[0].code) == "ImpossibleSpread"


def test_skew_counts_every_rack_that_admits_the_tasks_even_a_full_one() -> None:
    state = world(*racks(4, 4, 1), a=99)
    assert spots(state, gang(5, spread=Spread("rack", skew=1))) == [2, 2, 1]
    assert spots(state, gang(6, spread=Spread("rack", skew=1))) == []
    assert codes(schedule(state, 0), "x/w") == ["ImpossibleSpread"]
    assert spots(state, gang(7, spread=Spread("rack", skew=2))) == [3, 3, 1]
    assert spots(state, gang(8, spread=Spread("rack", skew=1), node_selector={"zone": "z1"})) == []
    state.set_workload(gang(1, name="x/here", gpu=1000, node_selector={"rack": "r2"}))
    settle(state, schedule(state, 0))
    state.set_workload(gang(4, spread=Spread("rack", skew=1)))
    plan = schedule(state, 0)
    assert codes(plan, "x/w")[0] == "NoSpread"
    assert "AnyArrangement" in {str(change.code) for change in explain(state, 0, "x/w").changes}
    assert all(render(reason) for reason in plan.verdicts["x/w"].reasons)


def test_with_a_required_level_only_its_domain_is_compared() -> None:
    state = world(*racks(3, 3, 1, 1, 3, 3, blocks=2), a=99)
    rule = Spread("rack", skew=1)
    assert spots(state, gang(6, spread=rule, required="zone"), "zone") == [6]
    assert spots(state, gang(6, spread=rule, required="zone")) == [3, 3]
    assert spots(state, gang(7, spread=rule, required="zone")) == []
    state.set_workload(gang(2, name="x/here", node_selector={"zone": "z0"}, spread=rule))
    settle(state, schedule(state, 0))
    state.set_workload(gang(6, spread=rule, required="zone"))
    assert {place[1] for place in bound(schedule(state, 0))} == {"n40", "n50"}


def test_a_level_that_no_node_is_in_is_no_fault_for_those_who_would_have_others_leave() -> None:
    """Found by `make fuzz KIND=tiny SEED=3003128`: rows of nodes were given where there was no domain to keep apart."""
    state = world(node("n0", 2, zone="z"), a=99)
    state.set_workload(gang(1, gpu=2000, name="x/less"))
    settle(state, schedule(state, 0))
    high = replace(gang(2, spread=Spread("rack", most=2), required="zone"), priority=1)
    state.set_workload(high)
    assert codes(schedule(state, 0), "x/w")[0] == "ImpossibleSpread"


def test_elastic_tasks_keep_apart_from_those_that_run() -> None:
    state = world(*racks(2, 2, 2), a=99)
    state.set_workload(gang(3, least=1, spread=Spread("rack", most=1)))
    settle(state, schedule(state, 0))
    assert sorted(state.nodes.names[task.row] for task in state.works["x/w"].tasks.values()) == ["n00", "n10", "n20"]
    settle(state, schedule(state, 0))
    state.release_task("x/w", "t001")
    assert len(bound(schedule(state, 0))) == 1


def test_slices_fill_few_racks_and_neighbours_in_rank_stay_together() -> None:
    state = world(*racks(7, 8, 8, 6), a=99)
    assert spots(state, gang(16, slices=Slices("rack", 4))) == [8, 8]
    assert spots(state, gang(20, slices=Slices("rack", 4))) == [4, 8, 8]
    state.set_workload(gang(12, slices=Slices("rack", 4)))
    settle(state, schedule(state, 0))
    tasks = state.works["x/w"].tasks.values()
    assert [state.nodes.names[task.row] for task in tasks] == ["n00"] * 4 + ["n10"] * 8


def test_all_slices_in_one_outer_domain() -> None:
    state = world(*racks(8, 7, 8, 4, 8, 8, blocks=2), a=99)
    assert spots(state, gang(16, slices=Slices("rack", 8), required="zone"), "zone") == [16]
    assert spots(state, gang(16, slices=Slices("rack", 8), required="zone")) == [8, 8]
    assert spots(state, gang(12, slices=Slices("rack", 4), required="zone"), "zone") == [12]
    assert spots(state, gang(24, slices=Slices("rack", 8), required="zone"), "zone") == []


def test_balanced_slices_are_even_over_the_fewest_racks() -> None:
    state = world(*racks(8, 8, 8, 8), a=99)
    assert spots(state, gang(18, slices=Slices("rack"))) == [8, 8, 2]
    assert spots(state, gang(18, slices=Slices("rack", balanced=True))) == [6, 6, 6]
    assert spots(state, gang(20, slices=Slices("rack", 2, balanced=True))) == [8, 6, 6]
    smaller = world(*racks(8, 6, 8, 6), a=99)
    smaller_spec = gang(12, slices=Slices("rack", balanced=True))
    smaller.set_workload(smaller_spec)
    assert {place[1] for place in bound(schedule(smaller, 0))} == {"n10", "n30"}


def test_a_lost_member_of_a_slice_comes_back_beside_its_slice() -> None:
    state = world(*racks(4, 4, 4), a=99)
    state.set_workload(gang(8, slices=Slices("rack", 4)))
    settle(state, schedule(state, 0))
    state.release_task("x/w", "t001")
    assert bound(schedule(state, 0))[0][1] == "n00"
    first = gang(1, name="x/v", node_selector={"rack": "r0"})
    state.set_workload(WorkloadSpec("x/v", "a", first.pod_sets, priority=9, preemptible=False))
    plan = schedule(state, 0)
    assert [place[:2] for place in bound(plan)] == [("x/v", "n00")]
    assert render(plan.verdicts["x/w"].reasons[0]).endswith("0 of 1 tasks fit, every 4 in one rack")


def test_elastic_growth_makes_slices_whole_before_it_begins_new_ones() -> None:
    state = world(*racks(4, 3, 4), a=99)
    state.set_workload(gang(8, least=4, slices=Slices("rack", 4)))
    settle(state, schedule(state, 0))
    at = Counter(state.nodes.names[task.row] for task in state.works["x/w"].tasks.values() if task.row >= 0)
    assert at == {"n00": 4, "n20": 4}


def test_the_verdict_says_that_slices_have_no_room() -> None:
    state = world(*racks(4, 4, 4), a=99)
    for rack in range(3):
        spec = gang(1, name=f"x/here{rack}", node_selector={"rack": f"r{rack}"})
        state.set_workload(WorkloadSpec(spec.name, "a", spec.pod_sets, preemptible=False))
    settle(state, schedule(state, 0))
    state.set_workload(gang(8, slices=Slices("rack", 4)))
    plan = schedule(state, 0)
    assert codes(plan, "x/w")[0] == "NoSlices"
    assert "0 of 8 tasks fit, every 4 in one rack" in render(plan.verdicts["x/w"].reasons[0])
    changes = {str(change.code) for change in explain(state, 0, "x/w").changes}
    assert {"AnyArrangement", "OthersLeave"} <= changes
    state.set_workload(gang(10, slices=Slices("rack", 5)))
    assert codes(schedule(state, 0), "x/w") == ["ImpossibleSlices"]
    state.set_workload(gang(2, slices=Slices("row")))
    plan = schedule(state, 0)
    assert codes(plan, "x/w") == ["TopologyUnknown"]
    assert render(plan.verdicts["x/w"].reasons[0]).endswith("the cluster's topology: it has zone, rack")


def test_room_is_made_slice_by_slice() -> None:
    """Only the racks that the slices take lose work."""
    state = world(*racks(4, 4, 4), a=0, b=8)
    for rack in range(3):
        state.set_workload(gang(1, name=f"x/here{rack}", gpu=1000 * (rack + 1), node_selector={"rack": f"r{rack}"}))
    settle(state, schedule(state, 0))
    spec = gang(8, slices=Slices("rack", 4))
    state.set_workload(WorkloadSpec("x/w", "b", spec.pod_sets))
    settle(state, schedule(state, 0))
    settle(state, schedule(state, 0))
    assert sorted(state.nodes.names[t.row] for t in state.works["x/w"].tasks.values()) == ["n00"] * 4 + ["n10"] * 4
    assert state.works["x/here2"].whole()


def test_room_is_made_apart() -> None:
    state = world(*racks(2, 2, 2), a=0, b=3)
    state.set_workload(gang(6, least=1, name="x/here"))
    settle(state, schedule(state, 0))
    spec = gang(3, spread=Spread(NODE, most=1))
    state.set_workload(WorkloadSpec("x/w", "b", spec.pod_sets))
    settle(state, schedule(state, 0))
    settle(state, schedule(state, 0))
    assert sorted(state.nodes.names[t.row] for t in state.works["x/w"].tasks.values()) == ["n00", "n10", "n20"]
    assert sum(state.works["x/here"].bound) == 3


@pytest.mark.parametrize("seed", range(20))
def test_the_row_chosen_is_the_best_of_all_that_the_rule_leaves(seed: int) -> None:
    draw = random.Random(seed)
    state = world(*racks(*(draw.randrange(5) for _ in range(4)), nodes=2), a=99)
    level = draw.choice(["rack", NODE])
    rule = Spread(level, draw.choice([None, 1, 2, 3]), draw.choice([1, 2]))
    strategy = draw.choice(["pack", "spread"])
    pods = PodSet("main", tuple(f"t{at}" for at in range(9)), 0, {}, draw.choice([500, 1000]), spread=rule)
    state.set_workload(WorkloadSpec("x/w", "a", (pods,), strategy=strategy))
    placer, work = Placer(state), state.works["x/w"]
    within = np.array(sorted(draw.sample(sorted(state.nodes.row.values()), 5)), np.int64) if seed % 2 else None
    spreading = placer.spreading(work, 0, within, land=False)
    assert spreading is not None
    for task in work.order[0]:
        scores = state.cache.scores(work.parts[0], land=False)
        left = spreading.rows(within)
        best = int(left[scores[left].argmax()]) if left.size else -1
        best = best if best >= 0 and scores[best] >= 0 else -1
        assert spreading.choose(scores, within) == best
        if best < 0:
            break
        placer.put(task, best, land=False)
        spreading.add(best)


@pytest.mark.parametrize("seed", range(60))
def test_few_domains_then_even_counts_is_the_best_of_all_divisions(seed: int) -> None:
    draw = random.Random(seed)
    room = [draw.randrange(5) for _ in range(4)]
    wanted = draw.randrange(1, 9)
    every = [given for given in product(*(range(r + 1) for r in room)) if sum(given) == wanted]
    for balanced in (False, True):
        given = allot(room, [0] * 4, wanted, balanced=balanced)
        if given is None:
            assert not every
            continue
        assert sum(given) == wanted
        assert all(0 <= mine <= left for mine, left in zip(given, room, strict=True))
        fewest = min(sum(map(bool, other)) for other in every)
        assert sum(map(bool, given)) == fewest
        if balanced:
            rivals = [sorted(filter(None, other)) for other in every if sum(map(bool, other)) == fewest]
            assert max(given) - min(filter(None, given)) == min(rival[-1] - rival[0] for rival in rivals)


def test_divisions_respect_what_is_there() -> None:
    assert divide(Slices("rack", 4), [8, 4, 4], [2, 0, 0], 6, 0) == [6, 0, 0]
    assert divide(Slices("rack", 4), [1, 8, 4], [2, 0, 0], 6, 0) is None
    assert divide(Slices("rack", 4), [3, 4], [0, 0], 1, 7) == [0, 1]
    assert divide(Slices("rack", 4), [3, 3], [0, 0], 1, 7) is None
    assert divide(Slices("rack", 4), [3, 6], [0, 0], 6, 0) == [0, 6]
    assert divide(Slices("rack", 1, balanced=True), [4, 4], [3, 1], 2, 0) == [0, 2]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Spread("", most=1),
        lambda: Spread("rack"),
        lambda: Spread("rack", most=0),
        lambda: Spread("rack", skew=True),
        lambda: Slices("", 2),
        lambda: Slices("rack", 0),
        lambda: gang(2, slices=Slices("rack"), spread=Spread("rack", most=1)),
    ],
)
def test_a_bad_rule_names_field_and_remedy(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r": .*; "):
        make()
