"""A world that is written down is the same world when it is read, and what is none is refused."""

from __future__ import annotations

import json
import random
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from heddle.engine import (
    Device,
    LabelMatch,
    Mig,
    NodeSpec,
    Placement,
    PodSet,
    QueueSpec,
    Snapshot,
    State,
    TaskFact,
    TaskMix,
    TypicalTask,
    WorkloadSpec,
    schedule,
)
from heddle.engine.cycle import Cycle
from heddle.simulator import clusters
from heddle.simulator.snapshot import Recorded, dump, load, read, write
from heddle.simulator.tables import TableError

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))

import test_invariants as invariants
from worlds import FUZZ

RICH = Snapshot(
    ("zone", "rack"),
    (NodeSpec("n", {"cpu": 4000}, (Device("g0", 0, "A100", 40960, 0, 1, Mig("A100-40GB", (("3g.20gb", 4),))),)),),
    (QueueSpec("q", quota={"gpu": None, "cpu": 4}, weight={"gpu": 1.5}, preempt_min_runtime=0.0),),
    (
        WorkloadSpec(
            "ns/w",
            "q",
            (PodSet("main", ("a", "b"), 1, {"cpu": 1}, mig="3g.20gb", node_affinity=((LabelMatch("x", "Exists"),),)),),
            awaited=frozenset({"b", "z", "y"}),
        ),
    ),
    (TaskFact(Placement("ns/w", "main", "a", "n", ("g0",), ("3g.20gb", 4)), 3.25, releasing=True, ready=True),),
    {"ns/w": (Placement("ns/w", "main", "b", "n", ("g0",), ("3g.20gb", 4)),)},
    task_mix=TaskMix(((TypicalTask(500, 1000), 3),)),
    counters={"counter:matlab": 3},
    disruption_budgets={"b": 0},
)
"""Has what random worlds lack."""


@pytest.mark.parametrize("seed", range(max(3, FUZZ // 10)))
def test_random_worlds_are_read_as_they_were_written(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    seen: list[Snapshot] = []
    begin = Cycle.__init__

    def watched(self: Cycle, state: State, *args: Any, **more: Any) -> None:
        seen.append(state.snapshot())
        begin(self, state, *args, **more)

    monkeypatch.setattr(Cycle, "__init__", watched)
    invariants.crowded_world(seed)
    invariants.passing_world(seed)
    monkeypatch.undo()
    assert any(snapshot.tasks for snapshot in seen)
    for at, snapshot in enumerate(seen):
        recorded = Recorded(snapshot, at / 3)
        assert load(dump(recorded)) == recorded
    last = random.Random(seed).choice(seen)
    again = load(dump(Recorded(last))).snapshot
    assert schedule(State.rebuild(again), invariants.NOW) == schedule(State.rebuild(last), invariants.NOW)


def test_every_field_survives() -> None:
    assert load(dump(Recorded(RICH, 7.5))) == Recorded(RICH, 7.5)
    lacking = [name for name in Snapshot.__dataclass_fields__ if not getattr(RICH, name)]
    assert lacking == ["past_usage"]  # which random worlds have


def test_equal_worlds_are_equal_bytes() -> None:
    (workload,) = RICH.workloads
    other = replace(
        RICH, workloads=(replace(workload, awaited=frozenset(["y", "z", "b"])),), counters={**RICH.counters}
    )
    assert dump(Recorded(other)) == dump(Recorded(RICH))


@pytest.mark.parametrize("ending", ["json", "json.gz", "json.xz"])
def test_files_may_be_compressed(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"world.{ending}"
    write(path, Recorded(RICH, 1))
    assert read(path) == Recorded(RICH, 1)
    found = clusters.read(path, form="snapshot")
    assert (found.nodes, found.topology, found.queues) == (RICH.nodes, RICH.topology, RICH.queues)
    assert clusters.read(path) == found


def edited(**changes: object) -> bytes:
    document = json.loads(dump(Recorded(RICH)))
    for where, value in changes.items():
        found = document
        *path, last = where.split("__")
        for step in path:
            found = found[int(step) if step.isdigit() else step]
        found[last] = value
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"nodes", "world: is no JSON"),
        (b"[]", "world: kind: is no snapshot of heddle; give a document with kind 'heddle-snapshot'"),
        (edited(kind="Node"), "world: kind: is no snapshot"),
        (edited(version=2), "world: version: 2 is not known; this heddle reads version 1"),
        (edited(at="now"), "world: at: 'now' is not valid; give seconds"),
        (edited(more=1), "world: more: is not known; leave it out"),
        (edited(snapshot=None), "world: snapshot: Expected `object`, got `null`"),
        (edited(snapshot__nodes=3), r"world: snapshot: Expected `array`, got `int` - at `\$.nodes`"),
        (edited(snapshot__nodes__0__name=""), r"world: snapshot: node.name: '' is not valid.* at `\$.nodes\[0\]`"),
        (edited(snapshot__nodes__0__colour="red"), r"world: snapshot.nodes\[0\].colour: is not known"),
        (edited(snapshot__tasks__0__since="x"), r"Expected `float`, got `str` - at `\$.tasks\[0\].since`"),
    ],
)
def test_what_is_no_world_names_the_field(data: bytes, says: str) -> None:
    with pytest.raises(TableError, match=says):
        load(data, "world")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"world\.json: there is no such file"):
        read(tmp_path / "world.json")
