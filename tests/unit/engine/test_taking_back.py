"""What a cycle only tried leaves no trace, however much it was, and shares are those of a tree divided anew."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from heddle.engine import Device, NodeSpec, PodSet, QueueSpec, State, WorkloadSpec, schedule
from heddle.engine.scheduler import fair_shares
from heddle.engine.work import Work

NODES = 12


def empty(draw: random.Random) -> State:
    """Nodes of 4 GPUs, and two levels of queues with and without quotas of GPUs and CPUs."""
    state = State()
    for at in range(NODES):
        state.set_node(NodeSpec(f"n{at:02}", {"cpu": 64_000}, tuple(Device(f"g{d}", d) for d in range(4))))
    for up in "ab":
        limit = {"gpu": 32_000} if draw.random() < 0.3 else {}
        state.set_queue(QueueSpec(up, quota={"gpu": draw.choice((8_000, 24_000))}, limit=limit))
        for low in range(3):
            quota: dict[str, int | None] = {"gpu": draw.choice((0, 4_000, 12_000))}
            if draw.random() < 0.5:
                quota["cpu"] = draw.choice((0, 100_000, 400_000))
            state.set_queue(QueueSpec(f"{up}{low}", up, quota, weight=draw.choice((1, 2))))
    return state


def claim(draw: random.Random, name: str) -> WorkloadSpec:
    tasks = draw.choice((1, 1, 2, 6))
    gpu = draw.choice((0, 250, 500, 1000, 2000))
    names = tuple(f"{name}-{at}" for at in range(tasks))
    pods = PodSet("main", names, draw.randint(1, tasks), {"cpu": draw.choice((1_000, 4_000, 9_000))}, gpu)
    queue = draw.choice(("a0", "a1", "a2", "b0", "b1", "b2"))
    return WorkloadSpec(name, queue, (pods,), preemptible=draw.random() < 0.8)


def kept(state: State) -> dict[str, Any]:
    """All that a transaction counts."""
    nodes = state.nodes
    ledgers = (nodes.bind, nodes.land, nodes.releasing, nodes.dev_bind, nodes.dev_land, nodes.dev_releasing)
    queues = state.tree.queues.values()
    return {
        "ledgers": [ledger.tolist() for ledger in ledgers],
        "queues": [
            (q.running, q.releasing, q.reserved, q.fixed, sorted(q.rows.items()), sorted(q.live)) for q in queues
        ],
        "works": [(w.name, w.bound, w.pending, w.leaving, w.held) for w in state.works.values()],
        "tasks": [(t.state, t.row, t.devices, t.since, t.hold) for w in state.works.values() for t in w.tasks.values()],
        "rows": [(row, len(there)) for row, there in sorted(state.on_row.items()) if there],
    }


@pytest.mark.parametrize("seed", range(20))
def test_a_cycle_that_started_many_leaves_all_as_it_was(seed: int) -> None:
    draw = random.Random(seed)
    state = empty(draw)
    for at in range(60):
        state.set_workload(claim(draw, f"w{at:02}"))
    for action in schedule(state, 0.0).actions[::2]:
        state.apply(action)
    state.settle()
    before = repr(kept(state))
    plan = schedule(state, 5.0)
    assert repr(kept(state)) == before
    assert schedule(state, 5.0) == plan
    fresh = State.rebuild(state.snapshot())
    for land in (False, True):
        assert np.array_equal(state.nodes.idle(land=land), fresh.nodes.idle(land=land))


@pytest.mark.parametrize("seed", range(12))
def test_shares_are_those_of_a_tree_divided_anew(seed: int) -> None:
    draw = random.Random(seed)
    state = empty(draw)
    there: list[str] = []
    for at in range(40):
        if there and draw.random() < 0.4:
            state.remove_workload(there.pop(draw.randrange(len(there))))
        else:
            there.append(f"w{at:02}")
            state.set_workload(claim(draw, there[-1]))
        if draw.random() < 0.3:
            for action in schedule(state, float(at)).actions:
                state.apply(action, float(at))
        assert fair_shares(state) == fair_shares(State.rebuild(state.snapshot())), f"after change {at}"


def test_counters_have_the_same_version_once_a_trial_is_taken_back() -> None:
    state = empty(random.Random(1))
    state.set_workload(claim(random.Random(2), "w"))
    state.settle()
    work: Work = state.works["w"]
    task = next(iter(work.tasks.values()))
    before = state.tree.version
    state.begin()
    state.hold(task, 0, ())
    tried = state.tree.version
    state.rollback()
    assert state.tree.version == before
    state.hold(task, 1, ())
    assert state.tree.version not in (before, tried)
    state.rollback()
    state.end()
    assert state.tree.version == before
