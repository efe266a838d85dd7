"""Claims that ask for the same and differ in walltime alone: some need not be heard, and nothing changes by it."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from heddle.engine import Budget, Device, NodeSpec, Placement, PodSet, QueueSpec, State, WorkloadSpec, schedule
from heddle.engine.cycle import Cycle
from heddle.engine.slack import Slack
from heddle.engine.stages import place
from heddle.engine.turns import Turns

NODES = 4


def crowded(seed: int) -> State:
    """Four nodes of 8 GPUs: some work of known walltime runs, and a line of jobs asks for the same few things."""
    draw = random.Random(seed)
    state = State()
    for at in range(NODES):
        state.set_node(NodeSpec(f"n{at}", {}, tuple(Device(f"g{d}", d) for d in range(8))))
    for name in "ab":
        state.set_queue(QueueSpec(name, quota={"gpu": 16_000}))
    for at in range(NODES):
        state.set_workload(spec(f"r{at}", draw.choice("ab"), draw.choice((3, 5, 6)), draw.uniform(50, 500)))
        gpus = state.works[f"r{at}"].spec.pod_sets[0].gpu // 1000
        state.bind(Placement(f"r{at}", "main", f"r{at}-0", f"n{at}", tuple(f"g{d}" for d in range(gpus))))
    for at in range(60):
        state.set_workload(spec(f"w{at:02}", draw.choice("ab"), draw.choice((1, 2, 4, 8)), draw.uniform(10, 900), at))
    return state


def spec(name: str, queue: str, gpus: int, walltime: float, created: float = 0.0) -> WorkloadSpec:
    pods = PodSet("main", (f"{name}-0",), 1, gpu=gpus * 1000)
    return WorkloadSpec(name, queue, (pods,), created=created, walltime=walltime, movable=False)


@pytest.mark.interpreted
@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("shadows", [0, 1, 3])
def test_who_is_not_heard_would_have_got_nothing(monkeypatch: pytest.MonkeyPatch, seed: int, shadows: int) -> None:
    heard = [0]
    start = place._start

    def counted(*args: Any, **more: Any) -> bool:
        heard[0] += 1
        return start(*args, **more)

    monkeypatch.setattr(place, "_start", counted)
    budget = Budget(shadows=shadows)
    plan = schedule(crowded(seed), 100.0, budget)
    few, heard[0] = heard[0], 0
    monkeypatch.setattr(Turns, "_hopeless", lambda *_: False)
    assert schedule(crowded(seed), 100.0, budget) == plan
    assert few < heard[0], "each of a long line was heard"


@pytest.mark.interpreted
@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("shadows", [0, 1])
def test_whoever_his_queue_has_nothing_left_for_would_have_got_nothing(
    monkeypatch: pytest.MonkeyPatch, seed: int, shadows: int
) -> None:
    def world() -> State:
        state, draw = crowded(seed), random.Random(seed)
        for name in "ab":
            state.set_queue(QueueSpec(name, "above", {"gpu": draw.choice((4000, 16_000))}, {"gpu": 12_000}))
        state.set_queue(QueueSpec("above", None, {}, {"gpu": draw.choice((16_000, 24_000, 64_000))}))
        return state

    budget = Budget(shadows=shadows)
    plan = schedule(world(), 100.0, budget)
    monkeypatch.setattr(Slack, "to_start", lambda self, *, within: np.full_like(self._share, 2**61))
    assert schedule(world(), 100.0, budget) == plan


def test_a_strict_line_is_heard_in_its_order_though_standings_are_worked_out_again() -> None:
    state = State()
    state.set_node(NodeSpec("n0", {}, tuple(Device(f"g{d}", d) for d in range(8))))
    state.set_queue(QueueSpec("a", ordering="StrictFIFO"))
    for at in range(4):
        state.set_workload(spec(f"w{at}", "a", at + 1, 60.0, at))
    turns = Turns(Cycle(state, 9.0, Budget()), heard={"a": [state.works[name].kind or () for name in ("w0", "w3")]})
    heard = []
    for queue, name in turns:
        heard.append(name)
        turns.done(queue)
        turns.restack()
    assert heard == ["w0", "w1", "w2", "w3"]
