"""Which nodes admit a demand is known of so many demands only."""

from __future__ import annotations

from heddle.engine import NodeSpec, State
from heddle.engine.eligible import EligibleRows, where


def test_demands_that_nobody_has_any_more_are_forgotten_and_known_anew() -> None:
    state = State()
    for at in range(3):
        state.set_node(NodeSpec(f"n{at}", {}, labels={"disk": str(at)}))
    eligible = EligibleRows(state.nodes)
    demands = [where({"disk": str(at)}, ()) for at in range(5000)]
    for demand in demands:
        eligible.of(demand)
    assert len(eligible._known) < len(demands)
    assert eligible.of(demands[1]).nonzero()[0].tolist() == [1]
