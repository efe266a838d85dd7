"""What happens in a simulation beside the jobs of its trace."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from heddle.engine.model import NodeSpec, QueueSpec


@dataclass(frozen=True, slots=True)
class NodeFails:
    """A node is gone, with all that ran on it.

    Attributes:
        at: seconds.
        node: its name.
    """

    at: float
    node: str


@dataclass(frozen=True, slots=True)
class NodeComes:
    """A node is back, or new.

    Attributes:
        at: seconds.
        node: what it is; None = as it was when it failed.
        name: of a node that is back.
    """

    at: float
    node: NodeSpec | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class QueueChanges:
    """A queue has other limits, quotas or policies from now on.

    Attributes:
        at: seconds.
        queue: what it is then.
    """

    at: float
    queue: QueueSpec


Event = NodeFails | NodeComes | QueueChanges


def failures(
    nodes: Sequence[NodeSpec], until: float, *, mean_between: float, mean_repair: float, seed: int
) -> list[Event]:
    """Failures and repairs drawn at random: both times are exponential.

    Args:
        nodes: which fail, each by itself.
        until: seconds; no failure begins later.
        mean_between: seconds between the end of a repair and the next failure of one node, in the mean.
        mean_repair: seconds that a repair takes, in the mean.
        seed: the same seed gives the same failures.
    """
    if mean_between <= 0 or mean_repair <= 0:
        raise ValueError("failures: give mean times of more than 0 seconds")
    found: list[Event] = []
    for node in sorted(nodes, key=lambda node: node.name):
        draw = random.Random(f"{seed} {node.name}")
        at = draw.expovariate(1 / mean_between)
        while at < until:
            back = at + draw.expovariate(1 / mean_repair)
            found += [NodeFails(at, node.name), NodeComes(back, name=node.name)]
            at = back + draw.expovariate(1 / mean_between)
    return ordered(found)


def ordered(events: Iterable[Event]) -> list[Event]:
    """Events by time; equal ones stay in their order."""
    return sorted(events, key=lambda event: event.at)
