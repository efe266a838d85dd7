"""Devices of one node close together: by links, then by NUMA node, the least of each left."""

from __future__ import annotations

import random
from itertools import combinations

import pytest
from worlds import bound, settle, work, world

from heddle.engine import Device, NodeSpec, schedule
from heddle.engine.together import Where, close_together

HGX = ((0, 0),) * 4 + ((0, 1),) * 4
"""One switch for all, two NUMA nodes."""
BRIDGES = ((0, 0), (0, 0), (1, 0), (1, 0), (2, 1), (2, 1), (3, 1), (3, 1))
"""NVLink bridges between pairs, two pairs a NUMA node."""
CUBE = ((0, 0),) * 4 + ((1, 1),) * 4
"""Two groups of four, as on a DGX-1."""
PLAIN = ((-1, 0),) * 4 + ((-1, 1),) * 4
"""No links at all."""


@pytest.mark.parametrize(
    ("groups", "idle", "count", "expected"),
    [
        (HGX, range(8), 2, (0, 1)),
        (HGX, (0, 1, 2, 3, 4, 5), 2, (4, 5)),  # the half that is begun already
        (HGX, (0, 1, 2, 3, 5), 1, (5,)),
        (HGX, (1, 2, 4, 5, 6, 7), 4, (4, 5, 6, 7)),
        (HGX, (0, 1, 2, 4, 5), 4, (0, 1, 2, 4)),  # no half has four
        (BRIDGES, (1, 2, 3, 4, 5), 2, (2, 3)),
        (BRIDGES, (0, 1, 2, 4, 6, 7), 1, (2,)),  # breaks no pair
        (BRIDGES, (0, 2, 4, 5, 6), 2, (4, 5)),
        (BRIDGES, (0, 2, 3, 4, 5, 6), 3, (0, 2, 3)),  # one NUMA node, a pair among them
        (BRIDGES, range(8), 6, (0, 1, 2, 3, 4, 5)),
        (CUBE, (0, 1, 2, 4, 5, 6, 7), 2, (0, 1)),
        (CUBE, (0, 1, 2, 3, 4, 5, 6), 3, (4, 5, 6)),
        (CUBE, (0, 1, 4, 5, 6), 4, (0, 4, 5, 6)),
        (PLAIN, (0, 1, 2, 3, 6, 7), 2, (6, 7)),
        (PLAIN, (0, 2, 4, 6, 7), 3, (4, 6, 7)),
    ],
)
def test_which_devices(groups: tuple[Where, ...], idle: range, count: int, expected: tuple[int, ...]) -> None:
    assert close_together(tuple(idle), groups, count) == expected


@pytest.mark.parametrize("seed", range(300))
def test_no_other_choice_is_closer(seed: int) -> None:
    draw = random.Random(seed)
    size = draw.randint(2, 8)
    groups = tuple((draw.choice([-1, 0, 0, 1, 2]), draw.choice([-1, 0, 1])) for _ in range(size))
    idle = tuple(sorted(draw.sample(range(size), draw.randint(1, size))))
    count = draw.randint(1, len(idle))
    found = close_together(idle, groups, count)
    assert found == tuple(sorted(set(found)))
    assert len(found) == count
    assert set(found) <= set(idle)

    def together(some: tuple[int, ...], kind: int) -> bool:
        names = {groups[device][kind] for device in some}
        return len(names) == 1 and -1 not in names

    def left(some: tuple[int, ...], kind: int) -> int:
        return sum(groups[device][kind] == groups[some[0]][kind] for device in idle)

    for kind in (0, 1):
        possible = [some for some in combinations(idle, count) if together(some, kind)]
        if possible:
            assert together(found, kind)
            assert left(found, kind) == min(left(some, kind) for some in possible)
            break


def server(name: str, groups: tuple[Where, ...]) -> NodeSpec:
    devices = tuple(Device(f"g{at}", at, link=link, numa=numa) for at, (link, numa) in enumerate(groups))
    return NodeSpec(name, {"cpu": 64_000}, devices)


def test_a_share_breaks_no_pair_either_and_joins_a_card_in_use_first() -> None:
    state = world(server("n0", BRIDGES), a=99)
    state.set_workload(work("x/a", "a", 1, 1))
    settle(state, schedule(state, 0))
    state.set_workload(work("x/b", "a", 1, 0.5))
    assert bound(schedule(state, 0)) == [("x/b", "n0", ("g1",))]
    settle(state, schedule(state, 0))
    state.set_workload(work("x/c", "a", 1, 0.5))
    assert bound(schedule(state, 0)) == [("x/c", "n0", ("g1",))]
    settle(state, schedule(state, 0))
    state.set_workload(work("x/d", "a", 3, 2))
    assert [place[2] for place in bound(schedule(state, 0))] == [("g2", "g3"), ("g4", "g5"), ("g6", "g7")]
