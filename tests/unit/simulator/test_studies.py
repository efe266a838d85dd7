"""Several simulations side by side."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from heddle.simulator import clusters, sources
from heddle.simulator.studies import Case, Goal, impossible, run, run_all, sizes, smallest


def case(policy: str = "easy", nodes: int = 4) -> Case:
    there = clusters.parse(f"{nodes}x4xH100")
    trace = sources.read("synthetic:jobs=80,gpus=1|2|4|8,load=1.2,duration=1h,seed=3", node_gpus=4, capacity=there.gpus)
    return Case(policy, there, trace, failing=(2e5, 3e3, 5))


def test_the_figures_do_not_depend_on_the_number_of_processes() -> None:
    cases = [case("fifo"), case("easy"), case("heddle"), replace(case("sjf"), failing=None)]
    alone = dict(run_all(cases))
    together = dict(run_all(cases, processes=2))
    assert [json.dumps(alone[at]) for at in range(4)] == [json.dumps(together[at]) for at in range(4)]
    assert [alone[at]["policy"] for at in range(4)] == ["fifo", "easy", "heddle", "sjf"]


def test_the_smallest_cluster_is_the_first_that_keeps_the_goal() -> None:
    asked = replace(case("best-effort"), failing=None)
    goal = Goal.of("p95 wait < 2h")
    found, tried = smallest(asked, goal, 2, 24)
    assert found is not None
    counts = [entry["cluster"]["nodes"] for entry in tried]
    assert counts == sorted(counts)
    assert found in counts
    before = run(replace(asked, cluster=asked.cluster.resized(found - 1)))
    assert not goal.kept(before)
    assert smallest(asked, Goal.of("max wait < 0s"), 2, 4)[0] is None


def test_who_would_wait_for_ever_is_named() -> None:
    assert impossible(case(nodes=4)) == []
    assert {job.gpus for job in impossible(case(nodes=1))} == {8}


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("4..8", (4, 5, 6, 7, 8)), ("64..256", (64, 112, 160, 208, 256)), ("4..9:4", (4, 8, 9)), ("8,2", (2, 8))],
)
def test_sizes(text: str, numbers: tuple[int, ...]) -> None:
    assert sizes(text) == numbers


@pytest.mark.parametrize("text", ["", "8..4", "0..3", "4..8:0", "a", "1,,2", "0"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="give"):
        sizes(text)


def test_goals() -> None:
    assert Goal.of("p95 wait < 10m") == Goal("wait", "p95", 600)
    assert Goal.of("mean-turnaround <= 1.5h") == Goal("turnaround", "mean", 5400)
    with pytest.raises(ValueError, match="p95 wait < 10m"):
        Goal.of("p42 wait < 10m")
