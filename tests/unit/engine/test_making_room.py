from __future__ import annotations

import random
from dataclasses import replace

import pytest
from worlds import bound, codes, node, settle, work, world

import heddle.engine.victims as victims_of_a_claim
from heddle.engine import Evict, PodSet, QueueSpec, Reserve, State, TaskState, WorkloadSpec, explain, schedule
from heddle.engine.asks import Asks
from heddle.engine.kinds import Kind
from heddle.engine.scheduler import advance
from heddle.engine.stages import room
from heddle.engine.victims import RoomSearch


def evicted(plan) -> dict[str, int]:  # type: ignore[no-untyped-def]
    found: dict[str, int] = {}
    for action in plan.actions:
        if isinstance(action, Evict):
            found[action.workload] = found.get(action.workload, 0) + 1
    return found


def full(state: State, name: str, queue: str, tasks: int, **more: object) -> None:
    state.set_workload(work(name, queue, tasks, **more))
    settle(state, schedule(state, 0))


def test_the_beneficiary_waits_for_its_promise_and_evicts_nobody_else() -> None:
    state = world(node("n0"), node("n1"), a=4, b=4)
    full(state, "x/a", "a", 8, least=1)
    state.set_workload(work("x/b", "b", 1, 4))
    first = schedule(state, 0)
    assert evicted(first) == {"x/a": 4}
    assert [action.workload for action in first.actions if isinstance(action, Reserve)] == ["x/b"]
    settle(state, first, release=False)
    again = schedule(state, 0)
    assert not again.actions
    assert codes(again, "x/b") == ["WaitingForRelease"]


def test_a_promise_holds_against_work_of_no_higher_claim() -> None:
    state = world(node("n0"), a=2, b=2)
    full(state, "x/a", "a", 4, least=1)
    state.set_workload(work("x/b", "b", 1, 2))
    settle(state, schedule(state, 0), release=False)
    leaving = [t.name for t in state.works["x/a"].tasks.values() if t.state is TaskState.RELEASING]
    state.release_task("x/a", leaving[0])
    state.set_workload(work("x/late", "a", 1, 1))
    assert not bound(schedule(state, 0)), "half of the promised room is free, and stays promised"
    state.release_task("x/a", leaving[1])
    plan = schedule(state, 0)
    assert [place[0] for place in bound(plan)] == ["x/b"]
    settle(state, plan)
    assert not schedule(state, 0).actions


def test_higher_priority_takes_over_the_promise_without_further_evictions() -> None:
    state = world(node("n0"), a=4)
    full(state, "x/low", "a", 1, gpus=4, priority=0)
    state.set_workload(work("x/mid", "a", 1, 4, priority=1))
    settle(state, schedule(state, 0), release=False)
    state.set_workload(work("x/high", "a", 1, 4, priority=2))
    plan = schedule(state, 0)
    assert not evicted(plan)
    assert {a.workload: len(a.placements) for a in plan.actions if isinstance(a, Reserve)} == {
        "x/mid": 0,
        "x/high": 1,
    }


def test_the_lowest_priority_goes_and_only_as_much_as_needed() -> None:
    state = world(node("n0"), a=8)
    full(state, "x/p1", "a", 1, gpus=2, priority=1)
    full(state, "x/p0", "a", 1, gpus=2, priority=0)
    state.set_workload(work("x/p9", "a", 1, 2, priority=9))
    assert evicted(schedule(state, 0)) == {"x/p0": 1}


def test_a_gang_at_its_minimum_goes_whole_or_stays_whole() -> None:
    state = world(node("n0"), a=4)
    full(state, "x/gang", "a", 4)
    state.set_workload(work("x/high", "a", 1, 1, priority=1))
    assert evicted(schedule(state, 0)) == {"x/gang": 4}


def test_room_for_a_whole_node_is_made_on_one_node() -> None:
    state = world(node("n0"), node("n1"), a=4, b=4)
    for at in range(8):
        full(state, f"x/a{at}", "a", 1)
    state.set_workload(work("x/b", "b", 1, 4))
    plan = schedule(state, 0)
    assert len(evicted(plan)) == 4
    assert len({state.works[name].tasks["t0"].row for name in evicted(plan)}) == 1


def test_reclaim_stops_at_the_share_of_the_gainer() -> None:
    state = world(node("n0", 8), a=4, b=4)
    full(state, "x/a", "a", 8, least=1)
    state.set_workload(work("x/b", "b", 8, least=1))
    plan = schedule(state, 0)
    assert evicted(plan) == {"x/a": 4}


def test_what_was_only_just_placed_takes_no_older_work_of_its_queue_along() -> None:
    state = world(node("n0"), a=2, b=3)
    full(state, "x/old", "a", 2, least=1)
    state.set_workload(work("x/new", "a", 2))  # on what is idle, beyond the quota of its queue
    state.set_workload(work("x/b", "b", 1, 3))
    first = schedule(state, 0)
    assert not evicted(first), "with one of the old and the new gone, queue a would have less than its quota"
    assert {name for name, _, _ in bound(first)} == {"x/new"}
    settle(state, first)
    assert not schedule(state, 0).actions, "nor does the new run for a moment only"


def test_a_gang_above_the_share_of_its_queue_goes_with_all_that_it_has_beyond_its_minimum() -> None:
    state = world(node("n0"), a=2, b=4)
    full(state, "x/a", "a", 4, least=3)
    state.set_workload(work("x/b", "b", 1, 4))
    assert evicted(schedule(state, 0)) == {"x/a": 4}


def outgrown_for_a_moment() -> State:
    """Queue a is beyond its quota with what will just have been placed; x/b needs one of the old for its start, and
    takes the room of the new to grow."""
    state = world(node("n0"), a=2, b=3)
    old = PodSet("main", ("t0", "t1"), 1, {"cpu": 32_000}, gpu=1000)
    state.set_workload(WorkloadSpec("x/old", "a", (old,)))
    settle(state, schedule(state, 0))
    state.set_workload(work("x/new", "a", 2))
    first, more = PodSet("first", ("t0",), 1, {"cpu": 32_000}, gpu=1000), PodSet("more", ("m0",), 0, gpu=2000)
    state.set_workload(WorkloadSpec("x/b", "b", (first, more)))
    return state


def test_nobody_leaves_for_what_was_placed_and_displaced_in_the_same_cycle() -> None:
    plan = schedule(outgrown_for_a_moment(), 0)
    assert not evicted(plan), "without the new, queue a is within its quota"
    assert {name for name, _, _ in bound(plan)} == {"x/new"}


def test_who_waits_for_what_only_now_starts_is_heard_again_at_once() -> None:
    state = outgrown_for_a_moment()
    assert not advance(state, 0).settled
    assert advance(state, 0).evicted, "queue a is beyond its quota now"


def test_a_limit_is_made_room_under_only_by_those_below_it() -> None:
    state = world(node("n0", 8), b=4)
    state.set_queue(QueueSpec("a", quota={"gpu": 2000}, limit={"gpu": 2000}))
    full(state, "x/low", "a", 2)
    state.set_workload(work("x/high", "a", 1, 1, priority=5))
    plan = schedule(state, 0)
    assert evicted(plan) == {"x/low": 2}, "idle devices do not help against a limit"


def test_a_broken_gang_is_refilled_or_after_its_grace_evicted() -> None:
    state = world(node("n0"), node("n1"), a=8)
    full(state, "x/gang", "a", 2, gpus=4)
    state.remove_node("n1")
    broken = work("x/gang", "a", 2, 4, broken_since=100.0)
    state.set_workload(broken)
    assert not schedule(state, 159.0).actions
    assert evicted(schedule(state, 160.0)) == {"x/gang": 1}
    state.set_node(node("n2"))
    assert [place[1] for place in bound(schedule(state, 160.0))] == ["n2"]


def test_two_queues_with_gangs_larger_than_their_share_do_not_evict_in_turns() -> None:
    state = world(node("n0"), a=2, b=2)
    full(state, "x/a", "a", 3)
    state.set_workload(work("x/b", "b", 3))
    assert not schedule(state, 0).actions


def test_a_spent_budget_is_said() -> None:
    from heddle.engine import Budget

    state = world(a=4)
    full(state, "x/low", "a", 4)
    state.set_workload(work("x/high", "a", 4, priority=1))
    plan = schedule(state, 0, Budget(victim_searches=0))
    assert not plan.actions
    assert "BudgetSpent" in codes(plan, "x/high")


def test_who_finds_nobody_to_evict_speaks_for_all_of_lower_priority_that_ask_for_the_same() -> None:
    from heddle.engine import Budget

    state = world(node("n0"), a=4)
    full(state, "x/fixed", "a", 1, gpus=2, preemptible=False)
    full(state, "x/low", "a", 1, gpus=2)
    for priority in range(2, 20):
        state.set_workload(work(f"x/large{priority}", "a", 1, 4, priority=priority))
    state.set_workload(work("x/small", "a", 1, 2, priority=1))
    plan = schedule(state, 0, Budget(victim_searches=3))
    assert evicted(plan) == {"x/low": 1}, "one search for all of the large, one for the small, and the large once more"
    assert not any("BudgetSpent" in codes(plan, f"x/large{priority}") for priority in range(2, 20))


def test_the_cycle_after_a_spent_budget_goes_on_with_those_not_yet_tried() -> None:
    from heddle.engine import Budget

    state = world(node("n0"), a=4)
    full(state, "x/fixed", "a", 1, gpus=2, preemptible=False)
    full(state, "x/low", "a", 1, gpus=2)
    state.set_workload(work("x/large", "a", 1, 4, priority=9))
    state.set_workload(work("x/small", "a", 1, 2, priority=1))
    one = Budget(victim_searches=1)
    plan = schedule(state, 0, one)
    assert not plan.actions
    assert "BudgetSpent" in codes(plan, "x/small")
    assert evicted(schedule(state, 0, one)) == {"x/low": 1}, "of the large it is known that it finds nobody"
    assert not schedule(State.rebuild(state.snapshot()), 0, one).actions, "which a state rebuilt has to find out again"
    assert evicted(schedule(State.rebuild(state.snapshot()), 0)) == {"x/low": 1}


def test_another_priority_changes_who_yields_and_frees_no_room() -> None:
    state = world(node("n0"), a=4)
    full(state, "x/runs", "a", 1, gpus=4)
    before = state.freed
    state.set_workload(work("x/runs", "a", 1, 4, priority=5))
    assert state.freed == before
    state.set_workload(work("x/waits", "a", 1, 4, priority=3))
    assert not schedule(state, 0).actions
    state.set_workload(work("x/waits", "a", 1, 4, priority=6))
    assert evicted(schedule(state, 0)) == {"x/runs": 1}


def families(**queues: tuple[str, int]) -> State:
    """Eleven GPUs on two nodes: queues x and y above, with five each, and some below them."""
    state = world(node("n0", 6), node("n1", 5), x=5, y=5)
    for name, (above, gpus) in queues.items():
        state.set_queue(QueueSpec(name, above, quota={"gpu": gpus * 1000}))
    return state


def test_queues_beside_the_claim_yield_first_where_the_one_above_would_end_beyond_its_own() -> None:
    state = families(a=("x", 2), b=("x", 3), c=("y", 5))
    for at in range(6):
        full(state, f"x/c{at}", "c", 1, selector={}, created=10 + at)
    for at in range(5):
        full(state, f"x/b{at}", "b", 1, created=at)
    state.set_workload(work("x/a", "a", 1, 1, created=20))
    plan = schedule(state, 0)
    assert evicted(plan) == {"x/b4": 1}, "c0 to c5 are newer, but x would end above its quota"
    settle(state, plan)
    settle(state, schedule(state, 0))
    assert any(state.works["x/a"].bound)


def test_those_further_away_yield_once_those_beside_the_claim_have() -> None:
    state = families(a=("x", 3), b=("x", 2), c=("y", 5))
    full(state, "x/b", "b", 3, least=1)
    full(state, "x/c", "c", 8, least=1)
    state.set_workload(work("x/a", "a", 3, 1))
    assert evicted(schedule(state, 0)) == {"x/b": 1, "x/c": 2}


@pytest.mark.interpreted
def test_who_got_nothing_is_not_searched_room_for_again_because_others_come(monkeypatch: pytest.MonkeyPatch) -> None:
    state = world(node("n0", 6), a=4, b=2)
    full(state, "x/large", "a", 1, gpus=5)
    full(state, "x/small", "b", 1, cpu=60_000)
    state.set_workload(work("x/waits", "b", 1, 1, cpu=10_000))
    searches: list[str] = []
    run = RoomSearch.run
    monkeypatch.setattr(RoomSearch, "run", lambda self: (searches.append(self.work.name), run(self))[1])
    assert not schedule(state, 0, verdicts_of=()).actions
    assert "x/waits" in searches
    for at in range(5):
        searches.clear()
        state.set_workload(work(f"x/later{at}", "b", 1, 1, cpu=20_000 + at))
        assert not schedule(state, at + 1, verdicts_of=()).actions
        assert "x/waits" not in searches
    searches.clear()
    state.remove_workload("x/later0")
    schedule(state, 6, verdicts_of=())
    assert "x/waits" in searches, "who was in the way of it may be gone"


def everybody(self: Asks, slacks: object) -> dict[str, list[Kind]]:
    """Stands in for `Asks.owed`: whatever their queue has left."""
    found: dict[str, list[Kind]] = {}
    for queue, kind in self._row:
        found.setdefault(queue, []).append(kind)
    return found


@pytest.mark.interpreted
@pytest.mark.parametrize("seed", range(40))
def test_who_is_where_and_who_may_take_back_is_told_in_short(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    draw = random.Random(seed)
    state = world(*(node(f"n{at}", draw.choice([2, 4]), rack=f"r{at // 2}", zone="z") for at in range(6)))
    for name in ("a", "b", "c"):
        state.set_queue(QueueSpec(name, "d" if name != "c" else None, quota={"gpu": draw.choice([0, 4000, 8000])}))
    state.set_queue(QueueSpec("d", quota={"gpu": draw.choice([4000, 12_000])}))

    def come(first: str, number: int) -> None:
        for at in range(number):
            gang, gpus = draw.choice([1, 1, 2, 3]), draw.choice([0.5, 1, 2])
            spec = work(
                f"{first}{at:02}", draw.choice("abc"), gang, gpus, priority=draw.randint(0, 2), created=float(at)
            )
            state.set_workload(replace(spec, preemptible=draw.random() < 0.8))

    come("w", 6)
    settle(state, schedule(state, 0.0))
    come("x", 16)
    plan = schedule(state, 1.0)
    long = [explain(state, 1.0, name) for name in ("x00", "x01")]
    monkeypatch.setattr(victims_of_a_claim, "_FEW", 0)
    monkeypatch.setattr(room, "_may_take_from", lambda rival, queue: True)
    monkeypatch.setattr(Asks, "owed", everybody)
    again = State.rebuild(state.snapshot())
    assert schedule(again, 1.0) == plan
    assert [explain(again, 1.0, name) for name in ("x00", "x01")] == long
