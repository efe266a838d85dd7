"""What a queue may be told beyond quota, limit and weight: what holds, and what people are told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from worlds import bound, codes, node, settle, work, world

from heddle.engine import (
    Ageing,
    Evict,
    NodeSpec,
    PastUsage,
    Placement,
    Plan,
    PodSet,
    QueueSpec,
    State,
    WorkloadSpec,
    explain,
    fair_shares,
    render,
    schedule,
)
from heddle.engine.usage import advanced


def queue(name: str, gpus: int | None = 0, parent: str | None = None, **more: object) -> QueueSpec:
    return QueueSpec(name, parent, {"gpu": None if gpus is None else gpus * 1000}, **more)  # type: ignore[arg-type]


def started(plan: Plan) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, _, _ in bound(plan):
        found[name] = found.get(name, 0) + 1
    return found


def cluster(gpus: int, *queues: QueueSpec) -> State:
    state = world(node("n0", gpus))
    for spec in queues:
        state.set_queue(spec)
    return state


# -- borrowing and lending -------------------------------------------------------------------------


def test_borrowing_ends_at_its_limit_and_the_reason_names_who_uses_it() -> None:
    state = cluster(8, queue("a", 2, borrowing_limit={"gpu": 1000}))
    state.set_workload(work("x/first", "a", 2))
    settle(state, schedule(state, 0))
    state.set_workload(work("x/second", "a", 2))
    reason = schedule(state, 0).verdicts["x/second"].reasons[0]
    assert (str(reason.code), reason.cap, reason.used) == ("OverBorrowingLimit", 3000, 2000)
    assert reason.holders == (("x/first", 2000),)
    assert render(reason) == (
        "queue a may use 3 GPUs, its quota and what it may borrow: 2 GPUs in use, 2 GPUs more asked for; "
        "held by x/first (2 GPUs)"
    )
    change = {str(c.code): c for c in explain(state, 0, "x/second").changes}["RaiseBorrowingLimit"]
    assert render(change) == "a borrowing limit of 2 GPUs instead of 1 GPU for queue a would admit it"
    state.set_queue(queue("a", 2, borrowing_limit={"gpu": 2000}))
    assert started(schedule(state, 0)) == {"x/second": 2}


def test_of_limit_and_borrowing_limit_the_lower_holds() -> None:
    state = cluster(8, queue("a", 2, limit={"gpu": 4000}, borrowing_limit={"gpu": 6000}))
    state.set_workload(work("x/w", "a", 5))
    assert codes(schedule(state, 0), "x/w")[0] == "OverLimit"
    changes = {str(c.code): c for c in explain(state, 0, "x/w").changes}
    assert changes["RaiseLimit"].wanted == 5000
    assert "RaiseBorrowingLimit" not in changes


def test_two_numbers_in_the_way_are_no_single_change() -> None:
    state = cluster(8, queue("a", 2, limit={"gpu": 4000}, borrowing_limit={"gpu": 2000}))
    state.set_workload(work("x/w", "a", 5))
    assert not {"RaiseLimit", "RaiseBorrowingLimit"} & {str(c.code) for c in explain(state, 0, "x/w").changes}


def test_the_verdict_names_who_keeps_what_is_idle_and_the_number_that_would_help() -> None:
    state = cluster(8, queue("a", 2), queue("b", 4, lending_limit={"gpu": 1000}), queue("c", 1))
    state.set_workload(work("x/w", "a", 7))
    reason = schedule(state, 0).verdicts["x/w"].reasons[0]
    assert (str(reason.code), reason.holders) == ("NotLent", (("b", 3000),))
    assert render(reason) == (
        "queue a would have to borrow 7 GPUs where 5 GPUs may still be used by borrowers; kept back by b (3 GPUs)"
    )
    change = {str(c.code): c for c in explain(state, 0, "x/w").changes}["RaiseLendingLimit"]
    assert (change.queue, change.cap, change.wanted) == ("b", 1000, 3000)
    state.set_queue(queue("b", 4, lending_limit={"gpu": 3000}))
    assert started(schedule(state, 0)) == {"x/w": 7}


def test_what_is_kept_is_used_by_its_owner_and_kept_only_while_idle() -> None:
    state = cluster(8, queue("a", 4), queue("b", 4, lending_limit={"gpu": 0}))
    state.set_workload(work("x/b", "b", 3))
    state.set_workload(work("x/a", "a", 8, least=1))
    assert started(schedule(state, 0)) == {"x/a": 4, "x/b": 3}


def test_lending_less_evicts_nobody_who_borrowed_before() -> None:
    state = cluster(8, queue("a", 4), queue("b", 4))
    state.set_workload(work("x/a", "a", 7, least=1))
    settle(state, schedule(state, 0))
    state.set_queue(queue("b", 4, lending_limit={"gpu": 0}))
    state.set_workload(work("x/more", "a", 1))
    plan = schedule(state, 0)
    assert not plan.actions
    assert codes(plan, "x/more")[0] == "NotLent"


def test_what_is_kept_back_is_nobodys_surplus() -> None:
    state = cluster(8, queue("a", 2), queue("b", 4, lending_limit={"gpu": 0}), queue("c", 2))
    state.set_workload(work("x/a", "a", 8, least=1))
    state.set_workload(work("x/c", "c", 8, least=1, created=1.0))
    assert started(schedule(state, 0)) == {"x/a": 2, "x/c": 2}


def test_others_do_not_reclaim_what_a_queue_keeps_for_itself() -> None:
    state = cluster(4, queue("top", 2), queue("a", 4, "top"), queue("b", 4))
    state.set_workload(work("x/a", "a", 4, least=1))
    settle(state, schedule(state, 0))
    state.set_workload(work("x/b", "b", 2))
    assert {a.workload for a in schedule(state, 0).actions if isinstance(a, Evict)} == {"x/a"}
    state.set_queue(queue("a", 4, "top", lending_limit={"gpu": 0}))
    assert not schedule(state, 0).actions
    state.set_queue(queue("a", 4, "top", lending_limit={"gpu": 2000}))
    assert len([a for a in schedule(state, 0).actions if isinstance(a, Evict)]) == 2


@pytest.mark.parametrize("field", ["borrowing_limit", "lending_limit"])
def test_a_limit_on_borrowing_or_lending_needs_a_quota(field: str) -> None:
    with pytest.raises(ValueError, match=rf"queue.{field}\[cpu\]: 1 is not valid; give a quota of cpu too"):
        replace(queue("a", 2), **{field: {"cpu": 1}})  # type: ignore[arg-type]


def test_more_than_the_quota_is_not_lent() -> None:
    with pytest.raises(ValueError, match=r"queue.lending_limit\[gpu\]: 3000 is not valid; give at most the quota"):
        queue("a", 2, lending_limit={"gpu": 3000})


# -- stopping --------------------------------------------------------------------------------------


def test_a_held_queue_starts_nothing_below_it_and_what_runs_stays() -> None:
    state = cluster(8, queue("top"), queue("a", 8, "top"), queue("b"))
    state.set_workload(work("x/runs", "a", 4, least=2))
    settle(state, schedule(state, 0))
    state.set_queue(queue("top", stop_policy="Hold"))
    state.set_workload(work("x/new", "a", 1))
    state.set_workload(work("x/else", "b", 1))
    plan = schedule(state, 0)
    assert started(plan) == {"x/else": 1}
    assert len(plan.actions) == 1
    (reason,) = plan.verdicts["x/new"].reasons
    assert render(reason) == "queue top is stopped: nothing new starts in it or below"
    (change,) = explain(state, 0, "x/new").changes
    assert render(change) == "without the stop of queue top it would start now"
    state.set_queue(queue("top"))
    assert started(schedule(state, 0)) == {"x/else": 1, "x/new": 1}


def test_what_would_not_start_anyway_is_not_said_to_wait_for_the_stop_alone() -> None:
    state = cluster(4, queue("a", 4, stop_policy="Hold"))
    state.set_workload(work("x/large", "a", 5))
    answer = explain(state, 0, "x/large")
    assert [str(reason.code) for reason in answer.reasons] == ["QueueStopped"]
    assert not answer.changes


def test_in_a_stopped_strict_line_lifting_the_stop_is_no_help_to_those_behind() -> None:
    state = cluster(4, queue("a", 4, stop_policy="Hold", ordering="StrictFIFO"))
    state.set_workload(work("x/head", "a", 5))
    state.set_workload(work("x/next", "a", 1, created=1.0))
    assert not explain(state, 0, "x/next").changes


def test_a_drained_queue_gives_its_room_to_others_and_keeps_what_is_not_preemptible() -> None:
    state = cluster(8, queue("a", 8), queue("b"))
    state.set_workload(work("x/fixed", "a", 2, preemptible=False))
    state.set_workload(work("x/soft", "a", 6))
    settle(state, schedule(state, 0))
    state.set_queue(queue("a", 8, stop_policy="HoldAndDrain"))
    state.set_workload(work("x/other", "b", 6))
    plan = schedule(state, 0)
    evicts = [action for action in plan.actions if isinstance(action, Evict)]
    assert {(action.workload, render(action.reason)) for action in evicts} == {
        ("x/soft", "evicted: queue a is being drained")
    }
    assert len(evicts) == 6
    settle(state, plan)
    following = schedule(state, 0)
    assert started(following) == {"x/other": 6}
    assert codes(following, "x/soft") == ["QueueStopped"]


def test_a_promise_of_a_stopped_queue_is_dropped() -> None:
    state = cluster(4, queue("a", 4), queue("b"))
    state.set_workload(work("x/b", "b", 4, least=1))
    settle(state, schedule(state, 0))
    state.set_workload(work("x/a", "a", 2))
    settle(state, schedule(state, 0), release=False)
    assert list(state.holders) == ["x/a"]
    state.set_queue(queue("a", 4, stop_policy="Hold"))
    settle(state, schedule(state, 0))
    assert not state.holders


def test_an_unknown_stop_policy_is_refused() -> None:
    with pytest.raises(ValueError, match=r"queue.stop_policy: 'Drain' is not valid; use 'None', 'Hold' or"):
        queue("a", stop_policy="Drain")


# -- submitters ------------------------------------------------------------------------------------


def test_a_user_limit_counts_each_submitter_by_itself_over_all_queues_below() -> None:
    state = cluster(8, queue("top", 8, user_limit={"gpu": 3000}), queue("a", 4, "top"), queue("b", 4, "top"))
    state.set_workload(work("x/ann-a", "a", 2, user="ann"))
    settle(state, schedule(state, 0))
    state.set_workload(work("x/ann-b", "b", 2, user="ann"))
    state.set_workload(work("x/bob-b", "b", 2, user="bob"))
    plan = schedule(state, 0)
    assert started(plan) == {"x/bob-b": 2}
    reason = plan.verdicts["x/ann-b"].reasons[0]
    assert render(reason) == (
        "queue top lets one user use 3 GPUs: user ann has 2 GPUs in use, 2 GPUs more asked for; "
        "held by x/ann-a (2 GPUs)"
    )
    change = {str(c.code): c for c in explain(state, 0, "x/ann-b").changes}["RaiseUserLimit"]
    assert (change.queue, change.cap, change.wanted) == ("top", 3000, 4000)
    state.release_task("x/ann-a", "t0")
    state.set_workload(work("x/ann-a", "a", 1, user="ann", selector={"none": "such"}))
    assert started(schedule(state, 0)) == {"x/ann-b": 2, "x/bob-b": 2}


def test_work_of_nobody_known_counts_as_one_submitters() -> None:
    state = cluster(8, queue("a", 8, user_limit={"gpu": 2000}))
    state.set_workload(work("x/one", "a", 2))
    state.set_workload(work("x/two", "a", 1))
    plan = schedule(state, 0)
    assert started(plan) == {"x/one": 2}
    assert "work of no known user has 2 GPUs in use" in render(plan.verdicts["x/two"].reasons[0])


def test_within_a_user_limit_only_the_same_submitters_work_is_preempted() -> None:
    state = cluster(8, queue("a", 8, user_limit={"gpu": 2000}))
    state.set_workload(work("x/ann", "a", 2, user="ann"))
    state.set_workload(work("x/bob", "a", 2, user="bob"))
    settle(state, schedule(state, 0))
    state.set_workload(work("x/high", "a", 2, user="ann", priority=1))
    plan = schedule(state, 0)
    assert {action.workload for action in plan.actions if isinstance(action, Evict)} == {"x/ann"}


def test_a_limit_that_comes_later_counts_what_already_runs_and_is_promised() -> None:
    state = cluster(4, queue("a", 4), queue("b"))
    state.set_workload(work("x/b", "b", 4, least=1, user="bob"))
    settle(state, schedule(state, 0))
    state.set_workload(work("x/a", "a", 2, user="ann"))
    settle(state, schedule(state, 0), release=False)
    state.set_queue(queue("a", 4, user_limit={"gpu": 2000}))
    state.set_workload(work("x/more", "a", 1, user="ann"))
    reason = schedule(state, 0).verdicts["x/more"].reasons[0]
    assert (str(reason.code), reason.used) == ("OverUserLimit", 2000)


# -- strict order ----------------------------------------------------------------------------------


def test_nobody_passes_the_head_of_a_strict_line() -> None:
    state = cluster(4, queue("a", 4, ordering="StrictFIFO"), queue("b"))
    state.set_workload(work("x/large", "a", 5))
    state.set_workload(work("x/small", "a", 1, created=1.0))
    state.set_workload(work("x/else", "b", 1))
    plan = schedule(state, 0)
    assert started(plan) == {"x/else": 1}
    assert codes(plan, "x/large")[0] == "Impossible"
    (reason,) = plan.verdicts["x/small"].reasons
    assert (str(reason.code), reason.head) == ("BehindHead", "x/large")
    assert render(reason) == "queue a starts in strict order: x/large is ahead and cannot start yet"
    (change,) = explain(state, 0, "x/small").changes
    assert render(change) == "were queue a not in strict order, it would start now"
    state.remove_workload("x/large")
    assert started(schedule(state, 0)) == {"x/else": 1, "x/small": 1}


def test_a_strict_line_starts_in_order_of_priority_and_age_as_far_as_it_gets() -> None:
    state = cluster(4, queue("a", 4, ordering="StrictFIFO"))
    for at, (tasks, priority) in enumerate([(1, 0), (3, 0), (1, 0), (2, 1)]):
        state.set_workload(work(f"x/{at}", "a", tasks, created=float(at), priority=priority))
    plan = schedule(state, 0)
    assert started(plan) == {"x/3": 2, "x/0": 1}
    assert codes(plan, "x/2") == ["BehindHead"]


def test_behind_the_head_nothing_grows_and_nobody_is_evicted_for_it() -> None:
    state = cluster(4, queue("a", 4, ordering="StrictFIFO"), queue("b"))
    state.set_workload(work("x/b", "b", 1))
    state.set_workload(work("x/grows", "a", 3, least=1, created=2.0))
    settle(state, schedule(state, 0))
    state.set_workload(work("x/grows", "a", 4, least=1, created=2.0))
    state.set_workload(work("x/head", "a", 5, created=1.0))
    plan = schedule(state, 0)
    assert not plan.actions
    assert [str(reason.code) for reason in plan.verdicts["x/grows"].reasons] == ["BehindHead"]


def test_a_head_whose_room_is_promised_no_longer_holds_up_the_line() -> None:
    state = cluster(4, queue("a", 3, ordering="StrictFIFO"), queue("b"))
    state.set_workload(work("x/b", "b", 4, least=1))
    settle(state, schedule(state, 0))
    state.set_workload(work("x/head", "a", 2))
    settle(state, schedule(state, 0), release=False)
    assert list(state.holders) == ["x/head"]
    state.set_workload(work("x/next", "a", 1, created=1.0))
    settle(state, schedule(state, 0), release=False)
    assert list(state.holders) == ["x/head", "x/next"]


def test_an_unknown_ordering_is_refused() -> None:
    with pytest.raises(ValueError, match=r"queue.ordering: 'FIFO' is not valid; use 'BestEffort' or 'StrictFIFO'"):
        queue("a", ordering="FIFO")


# -- GPU models ------------------------------------------------------------------------------------


def test_gpus_of_one_model_have_caps_of_their_own() -> None:
    state = State()
    for name, model in (("n0", "H100"), ("n1", "A100")):
        spec = node(name, 4, model=model)
        state.set_node(replace(spec, resources={**spec.resources, f"gpu:{model}": 4000}))
    state.set_queue(QueueSpec("a", quota={"gpu": 8000}, limit={"gpu:H100": 2000}))
    for at, model in enumerate(("H100", "H100", "A100")):
        asked = work(f"x/{at}", "a", 2, created=float(at), selector={"model": model})
        pods = replace(asked.pod_sets[0], request={f"gpu:{model}": 1000})
        state.set_workload(replace(asked, pod_sets=(pods,)))
    plan = schedule(state, 0)
    assert started(plan) == {"x/0": 2, "x/2": 2}
    assert render(plan.verdicts["x/1"].reasons[0]) == (
        "queue a is limited to 2 GPUs (H100): 2 GPUs (H100) in use, 2 GPUs (H100) more asked for; "
        "held by x/0 (2 GPUs (H100))"
    )


def test_fewer_gpus_of_a_capped_model_are_found_by_explain() -> None:
    state = State()
    spec = node("n0", 4, model="H100")
    state.set_node(replace(spec, resources={**spec.resources, "gpu:H100": 4000}))
    state.set_queue(QueueSpec("a", quota={"gpu": 8000}, limit={"gpu:H100": 2000}))
    asked = work("x/w", "a", 1, 4, selector={"model": "H100"})
    state.set_workload(replace(asked, pod_sets=(replace(asked.pod_sets[0], request={"gpu:H100": 4000}),)))
    changes = {str(change.code): change for change in explain(state, 0, "x/w").changes}
    assert changes["FewerGpus"].free == 2000
    assert changes["RaiseLimit"].wanted == 4000


# -- ageing ----------------------------------------------------------------------------------------


def line(plan: Plan) -> list[str]:
    places = {name: verdict.position for name, verdict in plan.verdicts.items() if verdict.position is not None}
    return sorted(places, key=lambda name: places[name] or 0)


def test_waiting_moves_work_up_the_line_until_its_points_are_used() -> None:
    state = cluster(1, queue("a", 1, ageing=Ageing(10, 2)))
    for name, priority, created in (("x/old", 0, 0.0), ("x/one", 1, 25.0), ("x/three", 3, 25.0)):
        state.set_workload(work(name, "a", 2, priority=priority, created=created))
    assert line(schedule(state, 0)) == ["x/three", "x/one", "x/old"]
    assert line(schedule(state, 20)) == ["x/three", "x/old", "x/one"]
    assert line(schedule(state, 1000)) == ["x/three", "x/one", "x/old"], "all have the same points in the end"
    assert line(schedule(state, 20)) == ["x/three", "x/old", "x/one"], "only the time given counts"
    state.set_queue(queue("a", 1))
    assert line(schedule(state, 20)) == ["x/three", "x/one", "x/old"]


def test_who_started_by_age_is_not_preempted_by_those_it_passed() -> None:
    state = cluster(1, queue("a", 1, ageing=Ageing(10, 2)))
    state.set_workload(work("x/old", "a", created=0.0))
    state.set_workload(work("x/young", "a", priority=1, created=25.0))
    plan = schedule(state, 29)
    assert started(plan) == {"x/old": 1}
    settle(state, plan)
    assert not schedule(state, 29).actions
    state.set_workload(work("x/high", "a", priority=5, created=29.0))
    assert {a.workload for a in schedule(state, 29).actions if isinstance(a, Evict)} == {"x/old"}


def test_age_alone_evicts_nobody() -> None:
    state = cluster(1, queue("a", 1, ageing=Ageing(10, 5)))
    state.set_workload(work("x/runs", "a", priority=1, created=100.0))
    settle(state, schedule(state, 100))
    state.set_workload(work("x/old", "a", created=0.0))
    assert line(schedule(state, 100)) == ["x/old"]
    assert not schedule(state, 100).actions


def test_ages_are_counted_again_only_when_they_gain_a_point() -> None:
    state = cluster(1, queue("a", 1, ageing=Ageing(10, 5)))
    assert state.ages_in(24.0) is None
    state.set_workload(work("x/w", "a", 2))
    assert state.ages_in(24.0) == 6.0
    schedule(state, 20)
    before = state.tree.queues["a"].waiting
    schedule(state, 29)
    fair_shares(state)
    assert state.tree.queues["a"].waiting is before
    schedule(state, 30)
    assert state.tree.queues["a"].waiting is not before


@pytest.mark.parametrize(("seconds", "most", "field"), [(0, 1, "seconds"), (1, -1, "most")])
def test_ageing_needs_a_time_and_a_most(seconds: float, most: int, field: str) -> None:
    with pytest.raises(ValueError, match=rf"queue.ageing.{field}: .* is not valid; give"):
        Ageing(seconds, most)


# -- past use --------------------------------------------------------------------------------------


def test_decayed_use_is_an_average_in_which_a_half_life_halves() -> None:
    past = PastUsage(0.0, {"gpu": 8000.0})
    assert advanced(past, {}, 10, 10).amounts == {"gpu": 4000.0}
    assert advanced(past, {"gpu": 8000}, 10, 25).amounts["gpu"] == pytest.approx(8000)
    assert advanced(past, {"gpu": 2000}, 10, 10).amounts == {"gpu": 5000.0}
    assert advanced(past, {"gpu": 2000}, 10, -5) == past
    in_steps = past
    for at in (1, 4, 4.5, 9, 10):
        in_steps = advanced(in_steps, {"gpu": 2000}, 10, at)
    assert in_steps.amounts["gpu"] == pytest.approx(5000), "it does not matter how often it is worked out"


def test_of_equals_the_one_that_used_less_lately_goes_first() -> None:
    state = cluster(1, queue("a", usage_half_life=100), queue("b", usage_half_life=100))
    for name in ("a", "b"):
        state.set_workload(work(f"x/{name}", name))
    assert started(schedule(state, 0)) == {"x/a": 1}
    state.set_past_usage("a", PastUsage(0.0, {"gpu": 500.0}))
    assert started(schedule(state, 0)) == {"x/b": 1}
    state.set_past_usage("b", PastUsage(0.0, {"gpu": 600.0}))
    assert started(schedule(state, 0)) == {"x/a": 1}
    state.set_queue(queue("a", usage_half_life=100, weight=1))
    state.set_queue(queue("b", usage_half_life=100, weight=2))
    assert started(schedule(state, 0)) == {"x/b": 1}, "to twice the weight twice the use is the same"


def test_past_use_evicts_nobody_and_yields_to_quota() -> None:
    state = cluster(2, queue("a", 1, usage_half_life=100), queue("b", 1, usage_half_life=100))
    state.set_past_usage("a", PastUsage(0.0, {"gpu": 2000.0}))
    state.set_workload(work("x/a", "a"))
    state.set_workload(work("x/b", "b", 2, least=1))
    plan = schedule(state, 0)
    assert started(plan) == {"x/a": 1, "x/b": 1}
    settle(state, plan)
    assert not schedule(state, 0).actions


def test_use_is_noted_of_what_ran_and_survives_a_rebuild() -> None:
    state = cluster(4, queue("top", usage_half_life=10), queue("a", 4, "top"), queue("b", 4))
    state.note_usage(0)
    state.set_workload(work("x/w", "a", 2))
    settle(state, schedule(state, 0))
    state.note_usage(10)
    state.release_task("x/w", "t0")
    state.note_usage(20)
    assert state.past_usage() == {"top": PastUsage(20, {"gpu": 1000.0})}
    again = State.rebuild(state.snapshot())
    again.note_usage(30)
    state.note_usage(30)
    assert again.past_usage() == state.past_usage()
    state.set_queue(queue("top"))
    assert not state.past_usage()


@pytest.mark.parametrize("call", [
    lambda: queue("a", usage_half_life=0),
    lambda: PastUsage(0.0, {"gpu": -1.0}),
    lambda: PastUsage(float("nan")),
    lambda: State().set_past_usage("none", PastUsage(0.0)),
])  # fmt: skip
def test_bad_past_use_is_refused_with_field_and_remedy(call: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r": .*; "):
        call()


def test_a_node_that_comes_or_goes_changes_what_may_be_lent_at_once() -> None:
    state = world(node("n0", 2))
    state.set_queue(QueueSpec("keeps", quota={"gpu": 2000}, lending_limit={"gpu": 0}))
    state.set_queue(QueueSpec("other", quota={"gpu": 0}))
    state.set_workload(work("x/w", "other", 1, 4))
    assert not bound(schedule(state, 0))
    state.set_node(node("n1", 4))
    assert bound(schedule(state, 0))
    state.set_workload(work("x/w", "other", 1, 8))
    assert not bound(schedule(state, 0))
    state.remove_node("n1")
    state.set_workload(work("x/w", "other", 1, 2))
    assert not bound(schedule(state, 0)), "the two that are left are kept"


def test_which_of_several_caps_is_told_does_not_depend_on_which_resource_was_heard_of_first() -> None:
    for first, second in (("b", "x"), ("x", "b")):
        state = State()
        for resource in (first, second):
            state.set_node(NodeSpec(f"n-{resource}", {resource: 1}))
        state.set_node(NodeSpec("n", {"b": 4, "x": 4}))
        state.set_queue(QueueSpec("a", limit={"b": 1, "x": 1}))
        state.set_workload(WorkloadSpec("x/w", "a", (PodSet("p", ("t",), 1, {"b": 2, "x": 2}),)))
        plan = schedule(state, 0)
        assert plan.verdicts["x/w"].reasons[0].resource == "b"
        assert plan == schedule(State.rebuild(state.snapshot()), 0)


def test_what_a_queue_runs_on_a_cordoned_node_it_need_not_keep_elsewhere() -> None:
    """Who binds and who cordons are two: no room becomes free by it, and yet others may use more."""
    state = world(node("n0", 4), replace(node("n1", 4), schedulable=False))
    state.set_queue(queue("keeper", 2, lending_limit={"gpu": 0}))
    state.set_queue(queue("other", 0))
    state.set_workload(work("x/w", "other", 1, 4))
    state.set_workload(work("x/k", "keeper", 1, 2, selector={"nobody": "has"}))
    assert not bound(schedule(state, 0))
    state.bind(Placement("x/k", "main", "t0", "n1", ("g0", "g1")))
    assert [place[:2] for place in bound(schedule(state, 0))] == [("x/w", "n0")]


# -- what is left ----------------------------------------------------------------------------------


def test_what_is_left_of_a_share_is_told_also_where_another_resource_has_to_be_divided_anew() -> None:
    state = world(node("n0", 0, cpu=1))
    state.set_queue(QueueSpec("a", quota={"gpu": 4000, "cpu": 0}))  # of CPUs nobody is owed any, and there is but one
    for name in ("x/v", "x/w"):
        state.set_workload(work(name, "a", 1, 1, cpu=1000))
    schedule(state, 0)
    state.remove_workload("x/w")
    assert state.tree.slack.own()[0].tolist() == [[2000, 1000, 0, 0]], "as divided last"
    schedule(state, 0)
    assert state.tree.slack.own()[0].tolist() == [[1000, 1000, 0, 0]]
