"""Worlds in which everything that can be told of a cluster changes, also what was thought settled.

The other random worlds are told of arrivals, ends and nodes. Here workloads are edited while they wait, run and leave,
tasks die by themselves and are awaited, queues go, come back and hang elsewhere, counters and topologies change, and a
plan may be carried out in part: the caller's writes fail, and it tells what became of them. Cycles have small budgets.
"""

from __future__ import annotations

import math
import random
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from engine_invariants import carry_out, check_state, nobody_is_withheld, plan_checked, priority_is_heeded
from test_invariants import BUDGETS, LEAVES, TREE, change_nodes, node, random_queue, random_workload
from worlds import FUZZ, SEATS

from heddle.engine import (
    Budget,
    Evict,
    NodeSpec,
    Placement,
    Plan,
    PodSet,
    QueueSpec,
    State,
    TaskState,
    WorkloadSpec,
    expect,
    explain,
    schedule,
)
from heddle.engine.forward import get_ready
from heddle.engine.nodes import TENANCY

DISKS = "disks"
"""What each node has a few of, as volumes that it can attach."""
CYCLES = (
    Budget(),
    Budget(),
    Budget(victim_nodes=1, moves=1, shadows=0, gang_grace=5.0),
    Budget(victim_nodes=2, moves=2, shadows=3, overdue=0.0),
    Budget(moves=0, shadows=2, shadow_searches=1, gang_grace=0.0),
)
"""Budgets of cycles."""
LEVELS = (["zone", "rack"], ["zone", "rack"], ["rack"], ["zone", "rack", "name"], [])
"""Topologies."""


def eventful_world(seed: int) -> None:
    """Twenty moments of such a world; in the end nothing happens any more, and it comes to rest."""
    draw = random.Random(seed)
    state = State()
    state.set_topology(LEVELS[0])
    budget = draw.choice(CYCLES)
    sizes = [(draw.choice([2, 4, 4, 8]), draw.choice([4000, 8000])) for _ in range(draw.randint(2, 5))]
    for at, (gpus, cpu) in enumerate(sizes):
        state.set_node(eventful_node(draw, at, gpus, cpu))
    policies, timed = draw.random() < 0.5, draw.random() < 0.6
    for name, parent in TREE:
        state.set_queue(eventful_queue(draw, name, parent, policies=policies))
    state.set_counters({SEATS: 3})
    now = 0.0
    for made in range(20):
        now += draw.choice([0.0, 1.0, 7.5, 40.0])
        state.note_usage(now)
        end_some(draw, state, now)
        for _ in range(draw.choice([0, 1, 1, 2])):
            if len(state.works) < 9:
                spec = eventful_workload(draw, made, now, social=seed % 3 == 1)
                state.set_workload(spec if timed else replace(spec, walltime=None))
                made += 100
        change_nodes(draw, state, sizes, partial(eventful_node, draw))
        change_rules(draw, state, policies=policies)
        for name in sorted(state.works):
            if draw.random() < 0.2:
                edit(draw, state, name, now, timed=timed)
        live_and_die(draw, state)
        if draw.random() < 0.1:
            come_from_elsewhere(draw, state, made)
        for name in [*state.lines.broken]:
            if state.works[name].spec.broken_since is None:
                state.set_workload(replace(state.works[name].spec, broken_since=now))
        check_state(state)
        plan = plan_checked(state, now, budget)
        if draw.random() < 0.8:
            carry_out(state, plan, now, release=False)
        else:
            carry_out_some(draw, state, plan, now)
        check_state(state)
        leave(draw, state)
    ask(draw, state, now, budget)
    come_to_rest(state, now + 100.0, budget)


def eventful_queue(draw: random.Random, name: str, parent: str | None, *, policies: bool) -> QueueSpec:
    """With amounts of more than GPUs."""
    spec = random_queue(draw, name, parent, policies=policies)
    quota, limit = dict(spec.quota), dict(spec.limit)
    if draw.random() < 0.3:
        quota["cpu"] = draw.choice([0, 2000, 8000])
    if draw.random() < 0.3:
        limit["cpu"] = draw.choice([1000, 4000, 8000])
    if draw.random() < 0.3:
        limit[SEATS] = draw.choice([0, 1, 3])
    if draw.random() < 0.2:
        quota[SEATS] = draw.choice([0, 1, 3])
    if draw.random() < 0.2:
        quota["gpu:B"] = draw.choice([0, 1000, 4000])
    weight = draw.choice([spec.weight, {"gpu": 2.0, "cpu": 0.0}, {"gpu": 0.5}])
    return replace(spec, quota=quota, limit=limit, weight=weight)


def eventful_workload(draw: random.Random, number: int, now: float, *, social: bool) -> WorkloadSpec:
    """With what the other worlds leave out: members that do not exist yet, volumes, speeds, saves at intervals."""
    spec = random_workload(draw, number, social=social)
    sets = []
    for pods in spec.pod_sets:
        more: dict[str, Any] = {}
        if draw.random() < 0.2:
            more["request"] = {**pods.request, DISKS: draw.choice([1, 2])}
        if draw.random() < 0.1:
            more["tasks"] = pods.tasks[: draw.randint(0, len(pods.tasks))]  # the others are still being made
        if len(pods.gpu_models) > 1 and draw.random() < 0.5:
            more["gpu_speeds"] = {pods.gpu_models[0]: draw.choice([0.5, 2.0])}
        sets.append(replace(pods, **more))
    if len(sets) == 1 and draw.random() < 0.1:
        sets, spec = [replace(sets[0], group="x")], replace(spec, min_groups=None)
    return replace(
        spec,
        min_groups=draw.randint(0, 1) if len(sets) == 1 and sets[0].group else spec.min_groups,
        pod_sets=tuple(sets),
        created=now,
        walltime=draw.choice([None, 30.0, 50.0, 100.0]),
        strategy=draw.choice(["pack", "pack", "spread", "fragmentation", "best-fit", "fgd"]),
        movable=draw.random() < 0.8,
        gentle=draw.random() < 0.1,
        saves_every=draw.choice([None, None, 10.0]),
        broken_since=None,
    )


def end_some(draw: random.Random, state: State, now: float) -> None:
    for work in list(state.works.values()):
        over = work.end is not None and work.end[0] <= now and draw.random() < 0.8
        if over or draw.random() < 0.05:
            state.remove_workload(work.name)


def change_rules(draw: random.Random, state: State, *, policies: bool) -> None:
    """Queues, budgets, counters and topology, each now and then."""
    if draw.random() < 0.2:
        state.set_disruption_budgets(draw.choice(BUDGETS))
    if draw.random() < 0.15:
        name, parent = draw.choice(TREE)
        if name in state.tree.queues and draw.random() < 0.3:
            state.remove_queue(name)
        else:
            above = draw.choice([parent, parent, parent, None, "c", "a2"])
            state.set_queue(eventful_queue(draw, name, above, policies=policies))
    elif draw.random() < 0.15:
        for name, parent in TREE:
            if name not in state.tree.queues or state.tree.queues[name].spec.parent != parent:
                state.set_queue(eventful_queue(draw, name, parent, policies=policies))
    if draw.random() < 0.15:
        state.set_counters({SEATS: draw.choice([0, 1, 2, 4])})
    if draw.random() < 0.05:
        state.set_topology(draw.choice(LEVELS))


def eventful_node(draw: random.Random, at: int, gpus: int, cpu: int) -> NodeSpec:
    """A node that attaches a few volumes; where it stands may change."""
    spec = node(at, gpus, cpu, at if draw.random() < 0.8 else draw.randint(0, 3))
    return replace(spec, resources={**spec.resources, DISKS: 3})


def edit(draw: random.Random, state: State, name: str, now: float, *, timed: bool) -> None:
    """One thing about a workload is told anew; what runs keeps its place."""
    spec = state.works[name].spec
    what = draw.choice(
        ("priority", "queue", "preemptible", "more", "fewer", "min", "walltime", "saved", "back", "user")
    )
    more: dict[str, Any] = {}
    at = draw.randrange(len(spec.pod_sets))
    pods = spec.pod_sets[at]
    if what == "priority":
        more["priority"] = draw.randint(0, 2)
    elif what == "queue":
        more["queue"] = draw.choice([*LEAVES, "nobody"])
    elif what == "preemptible":
        more["preemptible"] = not spec.preemptible
    elif what == "walltime":
        more["walltime"] = draw.choice([None, 30.0, 80.0]) if timed else None
    elif what == "saved":
        more["checkpointed"] = now
    elif what == "back":
        more["awaited"] = frozenset()
    elif what == "user":
        more["user"] = draw.choice(["", "ann", "bob"])
    elif what == "more":
        new = tuple(f"{pods.name}t{number}" for number in range(8) if f"{pods.name}t{number}" not in pods.tasks)
        pods = replace(pods, tasks=pods.tasks + new[: draw.randint(1, 3)])
    elif what == "fewer" and pods.tasks:
        gone = draw.choice(pods.tasks)
        pods = replace(pods, tasks=tuple(task for task in pods.tasks if task != gone))
    elif what == "min":
        pods = replace(pods, min=draw.randint(0, len(pods.tasks)))
    more["awaited"] = more.get("awaited", spec.awaited) & {task for p in spec.pod_sets for task in p.tasks}
    sets = (*spec.pod_sets[:at], pods, *spec.pod_sets[at + 1 :])
    if pods is not spec.pod_sets[at]:
        more["awaited"] &= {task for each in sets for task in each.tasks}
        more["pod_sets"] = sets
    state.set_workload(replace(spec, **more))


def live_and_die(draw: random.Random, state: State) -> None:
    """Tasks get ready, are so no longer, or end by themselves."""
    for work in list(state.works.values()):
        for task in list(work.tasks.values()):
            if task.state is not TaskState.BOUND:
                continue
            if work.after is not None and draw.random() < 0.5:
                state.mark_ready(work.name, task.name, ready=draw.random() < 0.9)
            if draw.random() < 0.03:
                state.release_task(work.name, task.name)


def come_from_elsewhere(draw: random.Random, state: State, number: int) -> None:
    """Somebody of no queue is on a node, as what heddle does not schedule."""
    room = np.minimum(state.nodes.bind, state.nodes.land)
    free = [name for name, row in sorted(state.nodes.row.items()) if room[row, 1] >= 500 and room[row, TENANCY] > 0]
    if free:
        pods = PodSet("p", ("t",), 1, {"cpu": 500})
        state.set_workload(WorkloadSpec(f"y/w{number}", "nobody", (pods,), preemptible=False))
        state.bind(Placement(f"y/w{number}", "p", "t", draw.choice(free)))


def carry_out_some(draw: random.Random, state: State, plan: Plan, now: float) -> None:
    """Some of what was planned could not be written."""
    for action in plan.actions:
        if draw.random() < 0.6:
            try:
                state.apply(action, now)
            except ValueError:
                assert not isinstance(action, Evict), "it runs, yet cannot be told to stop"


def leave(draw: random.Random, state: State) -> None:
    """Some of those who were told to stop are gone; of those who move, some are awaited."""
    for work in list(state.works.values()):
        awaited = set(work.spec.awaited)
        for task in list(work.tasks.values()):
            if task.state is TaskState.RELEASING and draw.random() < 0.4:
                state.release_task(work.name, task.name)
                if task.hold is not None and work.spec.movable and draw.random() < 0.5:
                    awaited.add(task.name)
            elif task.name in awaited and draw.random() < 0.5:
                awaited.discard(task.name)
        spec = state.works[work.name].spec
        if spec.broken_since is not None and work.name not in state.lines.broken:
            spec = replace(spec, broken_since=None)
        state.set_workload(replace(spec, awaited=frozenset(awaited)))


def ask(draw: random.Random, state: State, now: float, budget: Budget) -> None:
    """Questions about one who waits leave the state as it is."""
    names = state.waiting()
    if names:
        before, name = state.snapshot(), draw.choice(names)
        explain(state, now, name, budget)
        expect(state, now, name, budget, steps=20)
        assert state.snapshot() == before, "a question changed the state"
        check_state(state)


def come_to_rest(state: State, now: float, budget: Budget) -> None:
    """With everybody ready and gone who was told to leave, and nothing new, plans end."""
    for work in list(state.works.values()):
        state.set_workload(replace(work.spec, awaited=frozenset()))
    for _ in range(24):
        for work in list(state.works.values()):
            for task in list(work.tasks.values()):
                if task.state is TaskState.RELEASING:
                    state.release_task(work.name, task.name)
        get_ready(state)
        for name in [*state.lines.broken]:
            if state.works[name].spec.broken_since is None:
                state.set_workload(replace(state.works[name].spec, broken_since=now))
        plan = plan_checked(state, now, budget)
        carry_out(state, plan, now, release=True)
        if not plan.actions:
            patient = any(queue.drain_after < math.inf for queue in state.tree.queues.values())
            if not patient and all(work.spec.walltime is None for work in state.works.values()):
                nobody_is_withheld(state, now, budget)
                priority_is_heeded(state, now, budget)
            return
    assert not schedule(state, now, budget).actions, "the world does not come to rest"


FOUND = (5_100_697, 9_720_246, 9_763_205, 11_026_063)
"""Others were evicted for one who was let in nowhere once they had gone, for evenness with them, and got no promise;
a gang that had lost members went first in a strict line, and what stood before it then was looked at as it stood after
(a fault of the test); the share of a queue changed, and what it had left of it did not; somebody left for one whose
promise was void at once, as others minded its company, and it asked again until the budget was spent."""


@pytest.mark.parametrize("seed", [*range(FUZZ // 4), *FOUND])
def test_worlds_in_which_everything_changes_keep_every_invariant(seed: int) -> None:
    eventful_world(seed)
