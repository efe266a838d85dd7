"""Whom tasks would rather be with, or without: it decides between nodes, never whether a task starts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
from worlds import bound, node, settle, work, world

from heddle.engine import (
    Apart,
    Even,
    LabelMatch,
    Liked,
    Neighbours,
    NodePreference,
    NodeSpec,
    State,
    Taint,
    WorkloadSpec,
    schedule,
)
from heddle.engine.model import PodSet

WEB = Neighbours(("web",))


def hosts(*racks: str, gpus: int = 4, **more: object) -> list[NodeSpec]:
    """A node in each of these racks: n0, n1 …"""
    return [replace(node(f"n{at}", gpus, rack=rack, host=f"n{at}"), **more) for at, rack in enumerate(racks)]  # type: ignore[arg-type]


def submit(state: State, name: str, wish: Neighbours | None, tasks: int = 1, **fields: object) -> None:
    spec = work(name, "a", tasks, 1)
    sets: Iterable[PodSet] = (replace(part, neighbours=wish, **fields) for part in spec.pod_sets)  # type: ignore[arg-type]
    state.set_workload(replace(spec, pod_sets=tuple(sets)))


def starts(state: State, *names: str) -> list[str]:
    """Where these go now, one after the other."""
    settle(state, schedule(state, 0))
    found = []
    for name in names:
        found += [state.nodes.names[task.row] for task in state.works[name].tasks.values() if task.row >= 0]
    return found


def there(state: State, name: str, wish: Neighbours, host: str) -> None:
    submit(state, name, wish, node_selector={"host": host})
    assert starts(state, name) == [host]


@pytest.mark.parametrize(("weight", "node"), [(1, "n2"), (-1, "n0")])
def test_company_that_is_liked_draws_and_disliked_drives_away(weight: int, node: str) -> None:
    state = world(*hosts("r0", "r1", "r1"), a=99)
    there(state, "x/web", WEB, "n2")
    submit(state, "x/w", Neighbours((), liked=(Liked("rack", "web", weight),)))
    assert starts(state, "x/w") == [node]


def test_of_nodes_with_the_same_company_the_placement_chooses() -> None:
    state = world(*hosts("r0", "r1", "r1"), a=99)
    there(state, "x/web", WEB, "n1")
    there(state, "x/db", Neighbours(("db",)), "n2")
    submit(state, "x/w", Neighbours((), liked=(Liked("rack", "web", 1),)))
    assert starts(state, "x/w") == ["n1"]
    submit(state, "x/v", Neighbours((), liked=(Liked("host", "db", 5), Liked("host", "web", 4))))
    assert starts(state, "x/v") == ["n2"]


def test_a_wish_that_cannot_be_met_keeps_nobody_waiting() -> None:
    state = world(*hosts("r0", gpus=2), a=99)
    there(state, "x/web", WEB, "n0")
    submit(state, "x/w", Neighbours((), liked=(Liked("host", "web", -100),)))
    submit(state, "x/v", Neighbours((), liked=(Liked("host", "nobody", 100),)))
    assert starts(state, "x/w", "x/v") == ["n0"]


def test_tasks_of_one_gang_count_for_each_other() -> None:
    state = world(*hosts("r0", "r1", "r2", gpus=8), a=99)
    submit(state, "x/w", Neighbours(("web",), liked=(Liked("host", "web", -1),)), tasks=5)
    nodes = starts(state, "x/w")
    assert sorted(nodes.count(name) for name in ("n0", "n1", "n2")) == [1, 2, 2]
    state = world(*hosts("r0", "r1", "r0", "r1"), a=99)
    submit(state, "x/v", Neighbours(("web",), evened=(Even("rack", "web", 1),)), tasks=6)
    nodes = starts(state, "x/v")
    assert nodes.count("n0") + nodes.count("n2") == nodes.count("n1") + nodes.count("n3") == 3


def test_those_who_would_rather_be_even_start_all_the_same_where_they_cannot() -> None:
    state = world(*hosts("r0"), *[replace(each, name="m") for each in hosts("r1", gpus=1)], a=99)
    submit(state, "x/w", Neighbours(("web",), evened=(Even("rack", "web", 1),)), tasks=5)
    nodes = starts(state, "x/w")
    assert (nodes.count("n0"), nodes.count("m")) == (4, 1)


def test_nodes_without_the_label_come_last_for_evenness() -> None:
    bare = replace(node("a", 4), name="a")
    state = world(bare, *hosts("r0"), a=99)
    for at in range(3):
        there(state, f"x/web{at}", WEB, "n0")
    submit(state, "x/w", Neighbours(("web",), evened=(Even("rack", "web", 1),)))
    assert starts(state, "x/w") == ["n0"]


def test_soft_taints_come_before_company_and_preferred_labels_count_as_much() -> None:
    shy = hosts("r0", "r1")
    shy[1] = replace(shy[1], taints=(Taint("t", "", "PreferNoSchedule"),))
    state = world(*shy, a=99)
    there(state, "x/web", WEB, "n1")
    submit(state, "x/w", Neighbours((), liked=(Liked("host", "web", 100),)))
    assert starts(state, "x/w") == ["n0"]
    state = world(*hosts("r0", "r1", "r1"), a=99)
    there(state, "x/web", WEB, "n2")
    there(state, "x/db", Neighbours(("db",)), "n0")
    better = (NodePreference(1, (LabelMatch("rack", "In", ("r1",)),)),)
    wish = Neighbours((), liked=(Liked("host", "db", 1), Liked("host", "web", 1)))
    submit(state, "x/v", wish, node_preferences=better)
    assert starts(state, "x/v") == ["n2"]  # it has both


def test_a_wish_does_not_soften_a_rule() -> None:
    state = world(*hosts("r0", "r1"), a=99)
    there(state, "x/web", WEB, "n1")
    both = Neighbours((), apart=(Apart("rack", "web"),), liked=(Liked("host", "web", 100),))
    submit(state, "x/w", both)
    assert starts(state, "x/w") == ["n0"]
    state.remove_workload("x/w")
    submit(state, "x/fill", None, tasks=4, node_selector={"host": "n0"})
    starts(state, "x/fill")
    submit(state, "x/w", both)
    assert bound(schedule(state, 0)) == []


def test_a_world_with_wishes_plans_the_same_when_it_is_made_anew() -> None:
    state = world(*hosts("r0", "r1", "r1"), a=99)
    there(state, "x/web", WEB, "n2")
    submit(
        state, "x/w", Neighbours(("web",), liked=(Liked("rack", "web", 1),), evened=(Even("host", "web", 1),)), tasks=3
    )
    assert schedule(State.rebuild(state.snapshot()), 0) == schedule(state, 0)


def test_a_weight_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"liked\.weight"):
        Liked("host", "web", 0)


def test_who_minds_nobody_is_placed_as_ever() -> None:
    def spec(wish: Neighbours | None) -> WorkloadSpec:
        made = work("x/w", "a", 3, 1)
        return replace(made, pod_sets=tuple(replace(part, neighbours=wish) for part in made.pod_sets))

    plans = []
    for wish in (None, WEB):
        state = world(*hosts("r0", "r1"), a=99)
        state.set_workload(spec(wish))
        plans.append(bound(schedule(state, 0)))
    assert plans[0] == plans[1]
