"""Fragmentation gradient descent: the engine's figures against the published definition, loop by loop."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import numpy as np
import pytest
from worlds import bound, node, settle, work, world

from heddle.engine import NodeSpec, PodSet, State, TaskMix, Toleration, TypicalTask, WorkloadSpec, schedule
from heddle.engine.fragmentation import learned
from heddle.engine.nodes import LABEL_BITS


def lost(left: list[int], cpu: int, labels: dict[str, str], mix: TaskMix) -> int:
    """F_n of Weng et al. times the weight of the mix."""
    total = 0
    for task, weight in mix.tasks:
        share, count = min(task.gpu, 1000), max(1, task.gpu // 1000)
        fits = cpu >= task.cpu and sum(amount >= share for amount in left) >= count
        fits = fits and all(labels.get(label) == value for label, value in task.node_selector)
        total += weight * (sum(amount for amount in left if amount < share) if fits and task.gpu else sum(left))
    return total


def cost(left: list[int], cpu: int, labels: dict[str, str], mix: TaskMix, task: tuple[int, int]) -> tuple[int, int]:
    """(100 - published score, device) of one task on one node."""
    gpu, asked = task
    weight = sum(weight for _, weight in mix.tasks)
    before = lost(left, cpu, labels, mix)
    options = []
    if gpu >= 1000 or not gpu:
        idle = [at for at, amount in enumerate(left) if amount == 1000][: gpu // 1000]
        rest = [0 if at in idle else amount for at, amount in enumerate(left)]
        options.append((lost(rest, cpu - asked, labels, mix), 0))
    else:
        for device, amount in enumerate(left):
            if amount >= gpu:
                rest = [a - gpu if at == device else a for at, a in enumerate(left)]
                options.append((lost(rest, cpu - asked, labels, mix), device))
    after, device = min(options)
    saved = (before - after) * 16 // weight / 16
    return 100 - math.floor(100 / (1 + math.exp(-saved / 1000))), device


@pytest.mark.parametrize("seed", range(12))
def test_cached_costs_are_those_of_the_definition(seed: int) -> None:
    draw = random.Random(seed)
    state = world(*(node(f"n{at}", draw.choice([0, 2, 4, 8]), cpu=32, kind=draw.choice("ab")) for at in range(6)), a=99)
    if draw.random() < 0.5:
        kinds = {
            (draw.choice([0, 250, 500, 1000, 2000]), draw.randrange(8) * 1000, draw.choice("ab-")) for _ in "12345"
        }
        tasks = [TypicalTask(gpu, cpu, (("kind", kind),) if kind != "-" else ()) for gpu, cpu, kind in sorted(kinds)]
        state.set_task_mix(TaskMix(tuple((task, draw.randint(1, 9)) for task in tasks)))
    for at in range(25):
        gpu = draw.choice([0, 0.25, 0.3, 0.5, 1, 1, 2, 4])
        selector = draw.choice([{}, {}, {"kind": "a"}])
        spec = work(f"x/w{at}", "a", 1, gpu, cpu=draw.choice([0, 1, 4]) * 1000, selector=selector, strategy="fgd")
        state.set_workload(spec)
        settle(state, schedule(state, 0))
        if draw.random() < 0.2:
            state.remove_workload(draw.choice(sorted(state.works)))
        for cls in [cls for cls in state.cache.classes.values() if cls.key.fragmentation]:
            scores = state.cache.scores(cls, land=False)
            mix = state.cache.fragmentation.mix
            for row in np.flatnonzero(scores >= 0).tolist():
                left = [amount for amount in state.nodes.dev_bind[row].tolist() if amount >= 0]
                labels = dict(state.nodes.specs[row].labels)  # type: ignore[union-attr]
                cpu = int(state.nodes.bind[row, 1])
                expected, device = cost(left, cpu, labels, mix, (cls.gpu, cls.needs[1]))
                assert ~(int(scores[row]) >> LABEL_BITS + 1) & (1 << 20) - 1 == expected
                if 0 < cls.gpu < 1000:
                    assert state.cache.least_broken(cls, row, land=False) == device


def test_a_small_task_spares_the_node_that_large_tasks_need() -> None:
    """Packing would take the fuller node; there the task would end a place for a pair."""
    state = world(node("n0", 2), node("n1", 3), a=99)
    state.set_task_mix(TaskMix(((TypicalTask(2000), 3), (TypicalTask(1000), 1))))
    state.set_workload(work("x/one", "a", 1, 1, strategy="pack"))
    assert bound(schedule(state, 0))[0][1] == "n0"
    state.set_workload(work("x/one", "a", 1, 1, strategy="fragmentation"))
    assert bound(schedule(state, 0))[0][1] == "n1"


def test_the_mix_is_learned_from_all_known_work_and_survives_a_rebuild() -> None:
    state = world(a=99)
    state.set_workload(work("x/few", "a", 3, 4))
    state.set_workload(work("x/many", "a", 60, 0.5, cpu=2000))
    pods = PodSet("main", ("t",), 1, {}, 1000, {"b": "1", "a": "2"}, (Toleration("k"), Toleration("j")))
    state.set_workload(WorkloadSpec("x/one", "a", (pods,)))
    fragmentation = state.cache.fragmentation
    fragmentation.settle()
    assert fragmentation.mix.tasks == ((TypicalTask(500, 2000), 48), (TypicalTask(4000), 3))
    again = State.rebuild(state.snapshot()).cache.fragmentation
    again.settle()
    assert again.mix == fragmentation.mix
    state.remove_workload("x/many")
    fragmentation.settle()
    assert [task.gpu for task, _ in fragmentation.mix.tasks] == [4000, 1000]


SHARES = PodSet("p", ("t0", "t1", "t2", "t3"), 4, {"cpu": 500}, 500)


@pytest.mark.parametrize(
    "sets",
    [
        (SHARES, PodSet("whole", ("w",), 1, {}, 1000)),  # fits when it is packed only
        (replace(SHARES, gpu_models=("A", "B")),),
    ],
)
def test_what_was_only_tried_counts_once_somebody_asks_for_it(sets: tuple[PodSet, ...]) -> None:
    """The class of one GPU model, and that of the same packed, are made before anybody asks for them."""
    wide, narrow = node("n0", 2, cpu=2), NodeSpec("n1", {"cpu": 500}, node("n1", 1).devices)
    state = world(wide, narrow, a=99)
    state.set_workload(WorkloadSpec("x/first", "a", sets, strategy="spread"))
    schedule(state, 0)
    state.set_workload(WorkloadSpec("x/packed", "a", (SHARES,)))
    state.set_workload(WorkloadSpec("x/model", "a", (replace(SHARES, gpu_models=("A",)),), strategy="spread"))
    counted = state.cache.fragmentation
    counted.settle()
    assert dict(counted.mix.tasks)[TypicalTask(500, 500)] == 12


def test_a_given_mix_is_kept_as_it_is() -> None:
    state = world(a=99)
    state.set_workload(work("x/few", "a", 3, 4))
    mix = TaskMix(((TypicalTask(1000, 4000), 977),))
    state.set_task_mix(mix)
    rebuilt = State.rebuild(state.snapshot())
    rebuilt.cache.fragmentation.settle()
    assert rebuilt.cache.fragmentation.mix == mix
    state.set_task_mix(None)
    state.cache.fragmentation.settle()
    assert state.cache.fragmentation.mix.tasks == ((TypicalTask(4000), 3),)


def test_few_arrivals_do_not_change_what_is_typical() -> None:
    counts = {TypicalTask(1000): 100, TypicalTask(500): 60}
    assert learned(counts) == learned({TypicalTask(1000): 110, TypicalTask(500): 63})
    assert learned(counts) != learned({TypicalTask(1000): 130, TypicalTask(500): 60})


@pytest.mark.parametrize(
    "make",
    [
        lambda: TypicalTask(1500),
        lambda: TypicalTask(1000, -1),
        lambda: TaskMix(((TypicalTask(1000), 0),)),
        lambda: TaskMix(((TypicalTask(1000), 1), (TypicalTask(1000), 2))),
        lambda: TaskMix(tuple((TypicalTask(at * 1000), 2**31) for at in range(3))),
        lambda: WorkloadSpec("x/w", "a", (PodSet("p", ("t",), 1),), strategy="best"),
    ],
)
def test_a_bad_mix_or_strategy_names_field_and_remedy(make) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=r": .*; "):
        make()


def test_nodes_that_others_can_only_run_on_are_left_to_them() -> None:
    # half of what arrives must have "b", of which there are few; who may run anywhere fills "a" first
    nodes = [node(f"n{at}", 4, kind="b" if at == 0 else "a") for at in range(4)]
    state = world(*nodes, a=99)
    mix = TaskMix(((TypicalTask(1000), 1), (TypicalTask(1000, 0, (("kind", "b"),)), 1)))
    state.set_task_mix(mix)
    for at in range(12):
        state.set_workload(work(f"x/any{at:02}", "a", 1, 1, strategy="fragmentation", created=at))
    settle(state, schedule(state, 0))
    assert {task.row for work in state.works.values() for task in work.tasks.values()} == {1, 2, 3}
    assert state.cache.fragmentation.wanted.tolist()[:4] == [
        40,
        0,
        0,
        0,
    ]  # half of all on a quarter


def test_work_without_gpus_goes_where_no_gpu_is_left_to_waste() -> None:
    state = world(node("n0", 4, cpu=8, kind="a"), node("n1", 4, cpu=8, kind="b"), a=99)
    state.set_task_mix(TaskMix(((TypicalTask(1000, 1000), 1),)))
    state.set_workload(work("x/full", "a", 1, 4, cpu=1000, selector={"kind": "b"}))
    settle(state, schedule(state, 0))
    state.set_workload(work("x/cpu", "a", 1, 0, cpu=1000, strategy="fragmentation"))
    settle(state, schedule(state, 0))
    assert {task.row for task in state.works["x/cpu"].tasks.values()} == {state.nodes.row["n1"]}
