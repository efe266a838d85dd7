"""What a queue used lately: an average in which older use counts less, half as much for each half-life.

One number per queue and resource, in the resource's own units: with constant use it comes to that use. Between two
moments in which use is constant it is known in closed form, so that it is worked out only when use changes or somebody
asks: a(t) = a(s) 2^(-(t-s)/h) + u (1 - 2^(-(t-s)/h)).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from heddle.engine.model import _fault, _name, _number


@dataclass(frozen=True, slots=True)
class PastUsage:
    """A decayed average and its moment. The caller keeps it and gives it back.

    Attributes:
        at: seconds on the caller's clock.
        amounts: average per resource, in its own units; absent = 0.
    """

    at: float
    amounts: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _number("past_usage.at", self.at)
        for resource, value in self.amounts.items():
            _name("past_usage.amounts resource", resource)
            _number(f"past_usage.amounts[{resource}]", value)
            if value < 0:
                raise _fault(f"past_usage.amounts[{resource}]", value, "give 0 or more")


def advanced(past: PastUsage, used: Mapping[str, int], half_life: float, now: float) -> PastUsage:
    """The average at a later moment, with constant use meanwhile; an earlier moment leaves it as it is."""
    if now <= past.at:
        return past
    kept = 0.5 ** ((now - past.at) / half_life)
    names = sorted({*past.amounts, *used})
    amounts = {name: past.amounts.get(name, 0.0) * kept + used.get(name, 0) * (1 - kept) for name in names}
    return PastUsage(now, {name: value for name, value in amounts.items() if value > 0})


def burden(past: PastUsage, resources: Sequence[str], total: Sequence[int], weight: Sequence[float]) -> float:
    """One figure to compare siblings by: the dominant part of the cluster, for each unit of weight."""
    most = 0.0
    for name, whole, claim in zip(resources, total, weight, strict=True):
        if whole and (value := past.amounts.get(name)):
            most = max(most, value / whole / max(claim, 1e-9))
    return most
