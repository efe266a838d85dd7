"""Who is asked to leave first: of equal priority, who has least to do again."""

from __future__ import annotations

from dataclasses import replace

import pytest
from worlds import bound, node, settle, work, world

from heddle.engine import Evict, PodSet, State, WorkloadSpec, schedule


def run(state: State, now: float, *specs: WorkloadSpec) -> None:
    for spec in specs:
        state.set_workload(spec)
    settle(state, schedule(state, now), now=now)


def victims(state: State, now: float) -> set[str]:
    return {action.workload for action in schedule(state, now).actions if isinstance(action, Evict)}


def saved(state: State, name: str, at: float | None) -> None:
    state.set_workload(replace(state.works[name].spec, checkpointed=at))


def test_a_checkpoint_is_told_at_any_time_and_counts_from_then_on() -> None:
    state = world(node("n0", 2), a=2)
    run(state, 0, work("x/old", "a"))
    run(state, 50, work("x/new", "a"))
    state.set_workload(work("x/high", "a", priority=1))
    assert victims(state, 100) == {"x/new"}
    saved(state, "x/old", 90)
    assert victims(state, 100) == {"x/old"}
    saved(state, "x/new", 95)
    assert victims(state, 100) == {"x/new"}


def test_a_checkpoint_of_before_the_start_or_of_the_future_changes_nothing_else() -> None:
    state = world(node("n0", 2), a=2)
    run(state, 3000, work("x/one", "a", created=1, checkpointed=600))
    run(state, 3600, work("x/two", "a", created=0))
    state.set_workload(work("x/high", "a", priority=1))
    assert victims(state, 6000) == {"x/two"}, "what it resumed from is no work of this start"
    saved(state, "x/one", 1e6)
    assert victims(state, 6000) == {"x/one"}, "a clock that is ahead: it loses nothing"


def test_who_saves_by_itself_loses_what_it_did_since_the_last_interval() -> None:
    state = world(node("n0", 2), a=2)
    run(state, 0, work("x/saves", "a", saves_every=2400), work("x/never", "a"))
    state.set_workload(work("x/high", "a", priority=1))
    assert victims(state, 4740) == {"x/saves"}, "39 minutes"
    saved(state, "x/never", 3000)
    assert victims(state, 4740) == {"x/never"}, "29 minutes"
    assert victims(state, 4860) == {"x/saves"}, "1 minute"


def test_who_loses_less_is_reckoned_as_of_the_last_minute() -> None:
    state = world(node("n0", 2), a=2)
    run(state, 0, work("x/old", "a"))
    run(state, 130, work("x/new", "a", created=1))
    saved(state, "x/old", 150)
    state.set_workload(work("x/high", "a", priority=1))
    assert victims(state, 179) == {"x/new"}, "as of second 120 neither loses anything: the later start goes"
    assert victims(state, 181) == {"x/old"}, "as of second 180 it loses 30 s, the other 50"


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_an_interval_that_is_none_names_the_field(seconds: float) -> None:
    with pytest.raises(ValueError, match=r"workload\.saves_every"):
        work("x/w", "a", saves_every=seconds)


def test_gpus_times_time_counts_not_the_time_alone() -> None:
    state = world(node("n0", 4), a=4)
    run(state, 0, work("x/large", "a", gpus=3), work("x/small", "a", gpus=1))
    saved(state, "x/large", 3000)
    state.set_workload(work("x/high", "a", priority=1))
    assert victims(state, 6000) == {"x/small"}, "50 minutes of 3 GPUs are more than 100 minutes of one"
    saved(state, "x/large", 4200)
    assert victims(state, 6000) == {"x/large"}


def test_a_checkpoint_never_vetoes_and_never_outranks_priority() -> None:
    state = world(node("n0", 2), a=2)
    run(state, 0, work("x/saved", "a", priority=1, checkpointed=100), work("x/unsaved", "a"))
    state.set_workload(work("x/high", "a", priority=2))
    assert victims(state, 100) == {"x/unsaved"}


def test_who_saved_its_work_is_moved_rather_than_who_did_not() -> None:
    state = world(node("n0", 2), node("n1", 2), a=4)
    for name, at in (("x/old", "n0"), ("x/new", "n1")):
        pods = PodSet("main", ("t0",), 1, {}, 1000, {"at": at})
        state.set_node(node(at, 2, at=at))
        run(state, 0 if name == "x/old" else 50, WorkloadSpec(name, "a", (pods,)))
        state.set_workload(replace(state.works[name].spec, pod_sets=(replace(pods, node_selector={}),)))
    state.set_workload(work("x/whole", "a", gpus=2))
    assert victims(state, 100) == {"x/new"}
    saved(state, "x/old", 99)
    plan = schedule(state, 100)
    assert [a.workload for a in plan.actions if isinstance(a, Evict)] == ["x/old"]
    assert not bound(plan), "it lands once the one that moves has left"


def test_a_rebuilt_state_knows_the_checkpoint() -> None:
    state = world(node("n0", 2), a=2)
    run(state, 0, work("x/a", "a", checkpointed=7))
    assert State.rebuild(state.snapshot()).works["x/a"].spec.checkpointed == 7


def test_what_was_only_just_placed_is_displaced_before_what_runs_is_evicted() -> None:
    state = world(node("n0", 3), a=0, b=2, c=0)
    run(state, 900, work("x/one", "a"), work("x/two", "a"))
    state.set_workload(work("x/new", "c"))
    state.set_workload(work("x/owed", "b", gpus=2))
    plan = schedule(state, 1000)
    assert not bound(plan), "x/new had found room that x/owed now waits for"
    assert len([action for action in plan.actions if isinstance(action, Evict)]) == 1
