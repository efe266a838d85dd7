"""Which devices of one node a task gets: close together, so that what is left is close together too."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations

Where = tuple[int, int]
"""Of a device: its group of fast links and its NUMA node, each -1 if it has none or none is known."""

_MOST = 8
"""Up to so many groups the best few of them are searched; of more the largest are taken first."""


@lru_cache(maxsize=1 << 14)
def close_together(idle: tuple[int, ...], groups: tuple[Where, ...], count: int) -> tuple[int, ...]:
    """So many of the idle devices, in order.

    All in one link group if one holds them, else all on one NUMA node, else in as few of both as will do. Of groups
    that hold them the one in which least is left, so that large ones stay whole; inside it the same again by
    the other kind. Equals go to the first device.
    """
    for kind, other in ((0, 1), (1, 0)):
        holding = [group for group in _grouped(idle, groups, kind) if len(group) >= count]
        if holding:
            best = min(holding, key=lambda group: (len(group), group))
            return _fewest(_grouped(best, groups, other, loose=True), count)
    return _fewest(_grouped(idle, groups, None, loose=True), count)


def _grouped(
    idle: Sequence[int], groups: tuple[Where, ...], kind: int | None, *, loose: bool = False
) -> list[tuple[int, ...]]:
    """Devices by their group of one kind (None = of both). What is in none is left out, or ``loose``: by itself if
    it has no links, together if its NUMA node is not known."""
    found: dict[object, list[int]] = {}
    for device in idle:
        name: object = groups[device] if kind is None else groups[device][kind]
        if kind != 1 and groups[device][0] < 0:
            name = ("alone", device) if loose else -1
        if name != -1 or loose:
            found.setdefault(name, []).append(device)
    return [tuple(members) for members in found.values()]


def _fewest(groups: list[tuple[int, ...]], count: int) -> tuple[int, ...]:
    """So many devices of as few groups as hold them, and of those with least to spare."""
    if len(groups) <= _MOST:
        for number in range(1, len(groups) + 1):
            holding = [some for some in combinations(groups, number) if sum(map(len, some)) >= count]
            if holding:
                groups = list(min(holding, key=lambda some: (sum(map(len, some)), some)))
                break
    ordered = sorted(groups, key=lambda group: (-len(group), group))
    return tuple(sorted([device for group in ordered for device in group][:count]))
