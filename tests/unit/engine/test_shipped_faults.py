"""Faults that other schedulers shipped, one test each: what went wrong there, and what must hold here.

Numbers are of the projects' public issue trackers.
"""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import permutations

import pytest
from engine_invariants import check_state, plan_checked
from worlds import bound, codes, node, settle, work, world

from heddle.engine import (
    Ageing,
    Bind,
    Evict,
    Forward,
    Plan,
    PodSet,
    QueueSpec,
    State,
    TaskState,
    WorkloadSpec,
    explain,
    fair_shares,
    schedule,
)


def evicted(plan: Plan) -> list[str]:
    return [action.workload for action in plan.actions if isinstance(action, Evict)]


def runs(state: State, name: str) -> int:
    return sum(state.works[name].bound)


def rounds(state: State, number: int, now: float = 0.0) -> list[list[str]]:
    """Plays cycles, the evicted leaving at once; returns who was evicted in each."""
    lost = []
    for _ in range(number):
        plan = plan_checked(state, now)
        lost.append(evicted(plan))
        settle(state, plan, now=now)
        check_state(state)
    return lost


@pytest.mark.parametrize("sizes", [(4, 4), (4, 3), (5, 5), (3, 2, 3), (4, 4, 4)])
def test_fair_sharing_does_not_preempt_in_a_loop(sizes: tuple[int, ...]) -> None:
    """Kueue #14543, #3779, #13662: under fair sharing workloads preempted each other for ever, since gangs do
    not divide as
    shares do. Here the world comes to rest, and of those that compete somebody runs."""
    state = world(node("n0", 6))
    for at, size in enumerate(sizes):
        state.set_queue(QueueSpec(f"q{at}", quota={"gpu": 6000 // len(sizes)}))
        state.set_workload(work(f"x/w{at}", f"q{at}", size, created=float(at)))
    lost = rounds(state, 8)
    assert not any(lost[3:]), f"still evicting: {lost}"
    assert any(runs(state, name) for name in state.works)


def test_two_queues_do_not_reclaim_from_each_other_in_turns() -> None:
    """Volcano #3729: two queues reclaimed each other's tasks in a dead loop. Here, whoever is put out stays out."""
    state = world(node("n0", 4))
    for at in range(2):
        state.set_queue(QueueSpec(f"q{at}", quota={"gpu": 0}))
        for number in range(2):
            state.set_workload(work(f"x/q{at}-{number}", f"q{at}", 1, 3, created=float(number)))
        assert not any(rounds(state, 4)[2:])
    assert sum(runs(state, name) for name in state.works) == 1


def test_a_gang_is_preempted_whole() -> None:
    """Volcano #4607, #5026: single pods of a gang were preempted; the rest held its GPUs and did nothing."""
    state = world(node("n0", 4), a=4)
    state.set_workload(work("x/gang", "a", 4))
    rounds(state, 1)
    state.set_workload(work("x/high", "a", 1, priority=1))
    assert rounds(state, 2)[0] == ["x/gang"] * 4
    assert (runs(state, "x/gang"), runs(state, "x/high")) == (0, 1)


def test_nobody_is_evicted_for_a_gang_that_does_not_fit_afterwards() -> None:
    """Volcano #5026: evictions were kept although the preemptor could not be placed in the end."""
    state = world(node("n0", 4), node("n1", 4), a=8)
    state.set_workload(work("x/fixed", "a", 1, 1, priority=9, preemptible=False))
    for at in range(7):
        state.set_workload(work(f"x/low{at}", "a"))
    rounds(state, 1)
    state.set_workload(work("x/high", "a", 2, 4, priority=5))
    assert rounds(state, 3) == [[], [], []]


def test_room_for_one_task_is_made_on_one_node() -> None:
    """Kueue #5243: eight GPUs were freed, scattered over nodes, and the pod that needs all eight still had no place."""
    state = world(*(node(f"n{at}", 8) for at in range(4)), a=32)
    draw = random.Random(7)
    for at in range(32):
        state.set_workload(work(f"x/low{at}", "a", priority=draw.randint(0, 2), created=draw.random(), movable=False))
        rounds(state, 1)
    state.set_workload(work("x/high", "a", 1, 8, priority=5))
    plan = plan_checked(state, 0)
    rows = {state.works[name].tasks["t0"].row for name in evicted(plan)}
    assert (len(evicted(plan)), len(rows)) == (8, 1)
    settle(state, plan)
    rounds(state, 1)
    assert runs(state, "x/high") == 1


def test_two_gangs_of_one_cycle_do_not_get_the_same_domain() -> None:
    """Kueue #14570: two workloads admitted in one cycle were given the same nodes of a topology domain."""
    nodes = [node(f"n{at}", 4, zone="z", rack=f"r{at // 2}") for at in range(4)]
    state = world(*nodes, a=16)
    for at in range(3):
        state.set_workload(work(f"x/w{at}", "a", 2, 4, topology_required="rack", created=float(at)))
    places = bound(plan_checked(state, 0))
    taken = [(where, device) for _, where, devices in places for device in devices]
    assert len(taken) == len(set(taken)) == 16
    racks = {name: {int(where[1]) // 2 for workload, where, _ in places if workload == name} for name, _, _ in places}
    assert racks == {"x/w0": {0}, "x/w1": {1}}


def test_shares_never_over_pack_a_card_while_work_comes_and_goes() -> None:
    """KAI #2153, #848: shares of a GPU were packed beyond one card, and their pods then failed and came again
    for ever."""
    for seed in range(20):
        draw = random.Random(seed)
        state = world(node("n0", 2), a=1, b=1)
        for at in range(25):
            if draw.random() < 0.7 or not state.works:
                gpus, size = draw.choice([0.3, 0.4, 0.5, 0.6, 0.7]), draw.randint(1, 2)
                state.set_workload(work(f"x/{at}", draw.choice("ab"), size, gpus, priority=draw.randint(0, 1)))
            else:
                state.remove_workload(draw.choice(sorted(state.works)))
            settle(state, plan_checked(state, 0), release=draw.random() < 0.5)
            for work_ in list(state.works.values()):
                for task in list(work_.tasks.values()):
                    if task.state is TaskState.RELEASING and draw.random() < 0.5:
                        state.release_task(work_.name, task.name)
            held = [0, 0]
            for work_ in state.works.values():
                for task in work_.tasks.values():
                    for device in task.devices:
                        held[device] += task.cls.share
            assert max(held) <= 1000, f"seed {seed}: {held}"


def test_fair_sharing_takes_the_lowest_priority_of_the_queue_that_gives() -> None:
    """Priority inversion: where fair shares decided who gives, the important work of a queue went before its
    unimportant
    work. Here the queue gives its lowest priority first, and takes for its highest."""
    state = world(node("n0", 4), a=2, b=2)
    for at, priority in enumerate((9, 0, 5, 1)):
        state.set_workload(work(f"x/a{priority}", "a", priority=priority, created=float(at)))
    rounds(state, 1)
    for at, priority in enumerate((0, 7)):
        state.set_workload(work(f"x/b{priority}", "b", 2, priority=priority, created=float(at)))
    assert sorted(rounds(state, 2)[0]) == ["x/a0", "x/a1"]
    assert (runs(state, "x/b7"), runs(state, "x/b0")) == (2, 0)


def test_a_large_gang_is_not_starved_by_small_work_of_known_length() -> None:
    """KAI #1969: small jobs took every GPU that came free, and a large gang never landed. With walltimes, room
    is kept."""
    state = world(node("n0", 4), a=4)
    for at in range(4):
        state.set_workload(work(f"x/small{at}", "a", walltime=100.0 + 10 * at, created=float(at)))
    state.set_workload(work("x/large", "a", 4, walltime=50.0, created=10.0))
    for at in range(10):
        state.set_workload(work(f"x/late{at}", "a", walltime=100.0, created=20.0 + at))
    starts = {name: step.at for step in Forward(state, 0.0).steps() for name in step.started}
    assert starts["x/large"] == 130.0, "the end of the last of those who were there first"
    assert min(starts[f"x/late{at}"] for at in range(10)) >= 130.0


def test_a_large_gang_of_higher_priority_lands_without_walltimes() -> None:
    """Kueue #8309: in best-effort order large gangs starve. Higher priority makes room for them in one step."""
    state = world(node("n0", 4), node("n1", 4), a=8)
    for at in range(12):
        state.set_workload(work(f"x/small{at}", "a", created=float(at)))
    rounds(state, 1)
    state.set_workload(work("x/large", "a", 2, 4, priority=1, created=50.0))
    rounds(state, 2)
    assert runs(state, "x/large") == 2


def test_a_large_gang_at_the_head_of_a_strict_line_lands_as_work_ends() -> None:
    """Kueue #8309, Volcano #4690: whoever wants strict order gets it; it holds up its own queue and no other."""
    state = world(node("n0", 4), b=4)
    state.set_queue(QueueSpec("a", quota={"gpu": 4000}, ordering="StrictFIFO"))
    for at in range(4):
        state.set_workload(work(f"x/small{at}", "a", created=float(at)))
    rounds(state, 1)
    state.set_workload(work("x/large", "a", 3, created=10.0))
    state.set_workload(work("x/late", "a", created=11.0))
    state.remove_workload("x/small0")
    state.set_workload(work("x/other", "b", created=12.0))
    rounds(state, 1)
    assert (runs(state, "x/late"), runs(state, "x/other")) == (0, 1)
    for gone in ("x/small1", "x/small2", "x/other"):
        state.remove_workload(gone)
    rounds(state, 1)
    assert (runs(state, "x/large"), runs(state, "x/late")) == (3, 0)


def test_age_lets_old_work_pass_where_a_queue_asks_for_it() -> None:
    """KAI #1970: fairness was between queues only; inside one, old jobs of low priority starved."""
    state = world(node("n0", 1))
    state.set_queue(QueueSpec("a", ageing=Ageing(3600, 10)))
    state.set_workload(work("x/old", "a", priority=0, created=0.0))
    state.set_workload(work("x/new", "a", priority=2, created=4 * 3600.0))
    assert bound(schedule(state, 4 * 3600.0))[0][0] == "x/old"


def test_one_cycle_starts_all_that_fits_of_one_queue() -> None:
    """Kueue #14477: one workload of a queue was tried per cycle, so that a deep queue waited for hours beside
    idle GPUs."""
    state = world(*(node(f"n{at}", 8) for at in range(8)), a=64)
    for at in range(100):
        state.set_workload(work(f"x/w{at:03}", "a", created=float(at)))
    assert len(bound(schedule(state, 0))) == 64


def test_whoever_waits_beside_enough_free_gpus_is_told_why() -> None:
    """KAI #2058: a job of 16 GPUs was pending though 16 GPUs were free, and nothing said why."""
    state = world(*(node(f"n{at}", 8, zone="z", rack=f"r{at}") for at in range(4)), a=32)
    for at in range(4):
        state.set_workload(work(f"x/half{at}", "a", 1, 4, strategy="spread", preemptible=False))
    rounds(state, 1)
    state.set_workload(work("x/big", "a", 2, 8))
    [reason, *_] = schedule(state, 0).verdicts["x/big"].reasons
    assert (str(reason.code), reason.fits, reason.needed, reason.free) == ("NoRoom", 0, 2, 16000)
    state.set_workload(work("x/big", "a", 8, 1, topology_required="rack"))
    answer = explain(state, 0, "x/big")
    assert str(answer.reasons[0].code) == "NoDomain"
    assert "RelaxTopology" in [str(change.code) for change in answer.changes]


def test_what_can_never_run_is_said_in_the_first_cycle() -> None:
    """KAI's own figures: 249 s until an 80-GPU job was declared unschedulable. Here the first cycle says so."""
    state = world(*(node(f"n{at}", 8) for at in range(8)), a=64)
    state.set_workload(work("x/w", "a", 10, 8))
    assert codes(schedule(state, 0), "x/w") == ["Impossible"]


def test_a_share_is_never_below_the_quota_that_is_asked_for() -> None:
    """Koordinator #2393: a queue's runtime quota fell below its guaranteed minimum."""
    state = world(node("n0", 8))
    for at, quota in enumerate((6000, 4000, 0)):
        state.set_queue(QueueSpec(f"q{at}", quota={"gpu": quota}, weight=at * 10, priority=at))
        state.set_workload(work(f"x/w{at}", f"q{at}", 8, least=1))
    shares = fair_shares(state)
    assert [shares[f"q{at}"]["gpu"]["share"] for at in range(2)] == [6000, 4000]


def test_quota_alone_admits_nothing_that_no_node_can_hold() -> None:
    """Kueue #4329: quota was blind to the shape of nodes: work was admitted, and evicted others, that fitted
    nowhere."""
    state = world(node("n0", 4), node("n1", 4), a=0, b=8)
    for at in range(8):
        state.set_workload(work(f"x/a{at}", "a"))
    rounds(state, 1)
    state.set_workload(work("x/b", "b", 1, 8))
    plan = plan_checked(state, 0)
    assert plan.actions == ()
    assert codes(plan, "x/b") == ["Impossible"]


def test_ties_do_not_depend_on_the_order_in_which_things_were_told() -> None:
    """Kueue #6763: a tie was broken at random. Here every order of arrival of equal objects gives one plan."""
    plans = []
    for order in permutations(range(3)):
        state = world(a=3)
        for at in order:
            state.set_node(node(f"m{at}", 1))
        for at in order:
            state.set_workload(work(f"x/w{at}", "a"))
        plans.append(schedule(state, 0))
    assert all(plan == plans[0] for plan in plans)


def test_a_quota_of_one_gpu_model_is_given_to_its_owner() -> None:
    """KAI #1087: quotas could not tell GPU models apart, so a team's H100s went to whoever came first."""
    h100 = replace(node("h0", 2), resources={"cpu": 64_000, "gpu:H100": 2000}, labels={"gpu": "H100"})
    state = world(h100, node("n0", 2))
    state.set_queue(QueueSpec("a", quota={"gpu": 2000, "gpu:H100": 0}))
    state.set_queue(QueueSpec("b", quota={"gpu": 2000, "gpu:H100": 2000}))
    state.set_workload(pinned("x/a", "a"))
    rounds(state, 1)
    state.set_workload(pinned("x/b", "b"))
    rounds(state, 2)
    assert (runs(state, "x/a"), runs(state, "x/b")) == (0, 2)


def pinned(name: str, queue: str) -> WorkloadSpec:
    return WorkloadSpec(name, queue, (PodSet("p", ("t0", "t1"), 2, {"gpu:H100": 1000}, 1000, {"gpu": "H100"}),))


def test_of_equals_the_older_goes_first() -> None:
    """SkyPilot #5493: no first in, first out among equal jobs."""
    state = world(node("n0", 1), a=1)
    for name, created in (("x/a-late", 2.0), ("x/b-first", 1.0), ("x/c-last", 3.0)):
        state.set_workload(work(name, "a", created=created))
    order = []
    for _ in range(3):
        plan = schedule(state, 5.0)
        [started] = [action.placement.workload for action in plan.actions if isinstance(action, Bind)]
        order.append(started)
        settle(state, plan)
        state.remove_workload(started)
    assert order == ["x/b-first", "x/a-late", "x/c-last"]


def test_a_freed_place_is_kept_for_whom_it_was_freed() -> None:
    """Of several projects: what an eviction freed was taken by others before its beneficiary was tried again,
    and more had
    to be evicted. Here the place is promised until it is taken up."""
    state = world(node("n0", 4), a=4)
    for at in range(4):
        state.set_workload(work(f"x/low{at}", "a"))
    rounds(state, 1)
    state.set_workload(work("x/high", "a", 2, priority=5))
    plan = plan_checked(state, 0)
    settle(state, plan, release=False)
    first, second = evicted(plan)
    state.release_task(first, "t0")
    state.set_workload(work("x/small", "a", priority=5, created=9.0))
    again = plan_checked(state, 0)
    assert not bound(again)
    state.release_task(second, "t0")
    assert {place[0] for place in bound(plan_checked(state, 0))} == {"x/high"}
