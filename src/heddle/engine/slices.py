"""How slices of tasks divide among domains: in as few as hold them, filled up or evenly.

Choosing the fewest domains largest first, with the best fit for the last, is the rule of Kueue's topology-aware
scheduling (KEP-2724); evenness over the fewest domains is that of its balanced placement.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heapreplace

from heddle.engine.model import Slices


def divide(wish: Slices, room: Sequence[int], there: Sequence[int], count: int, further: int) -> list[int] | None:
    """Tasks that each domain gets; None = slices of them have no room.

    Slices that lack tasks (one of them was lost, or grows) are made whole first, and nowhere else.

    Args:
        wish: size and manner.
        room: tasks that each domain could take.
        there: tasks that each domain has.
        count: tasks to place.
        further: tasks that may follow: a slice is not begun where it could not be finished.
    """
    size = wish.size
    given = [0] * len(room)
    for at, has in enumerate(there):
        if has % size and count:
            given[at] = min(size - has % size, count)
            if given[at] > room[at]:
                return None
            count -= given[at]
    slices, rest = divmod(count, size)
    whole = [(left - mine) // size for left, mine in zip(room, given, strict=True)]
    held = [-(-has // size) for has in there]
    allotted = allot(whole, held, slices, balanced=wish.balanced)
    if allotted is None:
        return None
    for at, number in enumerate(allotted):
        given[at] += number * size
    if rest:  # a slice that is begun, or the last one, which may be smaller
        needed = min(size, rest + further)
        fitting = [at for at, mine in enumerate(given) if room[at] - mine >= needed]
        if not fitting:
            return None
        sign = 1 if wish.balanced else -1  # evenly: where least is; else where most is
        at = min(fitting, key=lambda at: (given[at] + there[at] == 0, sign * (given[at] + there[at]), room[at], at))
        given[at] += rest
    return given


def allot(room: Sequence[int], held: Sequence[int], wanted: int, *, balanced: bool) -> list[int] | None:
    """Slices that each domain gets; None = there is no room for all.

    Args:
        room: slices that each domain could take more; domains in the order in which equals are taken.
        held: slices that each domain has already; such domains are used before others are.
        wanted: slices to place.
        balanced: evenly over the domains used, instead of one after the other.
    """
    if sum(room) < wanted:
        return None
    used = [at for at, has in enumerate(held) if has]
    fresh = sorted((at for at, has in enumerate(held) if not has and room[at]), key=lambda at: -room[at])
    given = [0] * len(room)
    if balanced:
        left = wanted - sum(room[at] for at in used)
        opened = 0
        while left > 0:
            left -= room[fresh[opened]]
            opened += 1
        even = -(-(wanted + sum(held)) // (len(used) + opened)) if used or opened else 0
        snug = sorted((at for at in fresh if room[at] >= even), key=lambda at: (room[at], at))[:opened]
        chosen = used + snug
        if len(snug) < opened or sum(room[at] for at in chosen) < wanted:
            chosen = used + fresh[:opened]
        return _evenly(room, held, wanted, chosen)
    for at in sorted(used, key=lambda at: -room[at]):
        given[at] = min(room[at], wanted)
        wanted -= given[at]
    for position, at in enumerate(fresh):
        if wanted <= 0:
            break
        if room[at] >= wanted:  # the last: the smallest that holds the rest
            at = min(fresh[position:], key=lambda at: (room[at] < wanted, room[at]))
        given[at] = min(room[at], wanted)
        wanted -= given[at]
    return given


def _evenly(room: Sequence[int], held: Sequence[int], wanted: int, chosen: Sequence[int]) -> list[int]:
    """One slice after the other to the domain that has fewest."""
    given = [0] * len(room)
    heap = [(held[at], at) for at in chosen if room[at]]
    heapify(heap)
    while wanted:
        has, at = heap[0]
        if given[at] == room[at]:
            heapreplace(heap, (1 << 60, at))
            continue
        given[at] += 1
        wanted -= 1
        heapreplace(heap, (has + 1, at))
    return given
