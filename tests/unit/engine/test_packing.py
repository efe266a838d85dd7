"""The cost of a place is the same for one row as for that row among many."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from heddle.engine.packing import NOWHERE, Packing

amount = st.integers(0, 20_000)
devices = st.lists(st.integers(0, 1000), min_size=1, max_size=8)
gpu = st.sampled_from([0, 1, 100, 250, 500, 999, 1000, 2000, 4000, 8000])
row = st.tuples(devices, amount, amount)


@given(gpu, amount, st.booleans(), st.lists(row, min_size=1, max_size=5))
def test_one_row_costs_what_it_costs_among_others(
    gpu: int, cpu: int, spread: bool, rows: list[tuple[list[int], int, int]]
) -> None:
    packing = Packing(gpu, cpu, gpu // 1000, spread)
    width = max(len(left) for left, _, _ in rows)
    devices = np.array([left + [-1] * (width - len(left)) for left, _, _ in rows])
    free = np.array([[sum(left), cpu + more, 0] for left, more, _ in rows])
    capacity = np.array([[len(left) * 1000, cpu + more + used, 0] for left, more, used in rows])
    costs, enough = packing.costs(free, devices, capacity)
    for at in range(len(rows)):
        alone = packing.cost(free[at].tolist(), devices[at].tolist(), capacity[at].tolist())
        assert alone == (int(costs[at]) if enough[at] else NOWHERE)
        assert alone < 1 << 20


def test_the_fullest_device_with_room_goes_first_and_the_emptiest_when_spread() -> None:
    full, half = ([200, 1000], [600, 1000])
    cost = {
        spread: [Packing(200, 0, 0, spread).cost([sum(left), 0], left, [2000, 1]) for left in (full, half)]
        for spread in (False, True)
    }
    assert cost[False][0] < cost[False][1]
    assert cost[True][1] < cost[True][0]
