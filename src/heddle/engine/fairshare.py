"""Dividing a resource among siblings: quota first, then the surplus by priority and weight.

The surplus of one priority is divided by weighted water-filling in closed form: sort by request/weight, and the water
level follows without iteration (progressive filling as in max-min fairness: D. Bertsekas, R. Gallager, Data Networks,
2nd ed., §6.5.2; the weighted form as in weighted max-min). Siblings are few, so plain numbers are faster than arrays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

UNBOUNDED = 2**62
"""Stands for "no quota is set" and "no limit is set"."""


def water_fill(amount: float, want: Sequence[float], weight: Sequence[float]) -> list[float]:
    """Divides ``amount`` in proportion to ``weight``, nobody above ``want``. O(n log n).

    Entries of weight 0 get nothing. What nobody wants is left over.
    """
    given = [0.0] * len(want)
    claims = sorted((want[at] / weight[at], at) for at in range(len(want)) if weight[at] > 0 and want[at] > 0)
    if amount <= 0:
        return given
    rests = [*accumulate(weight[at] for _, at in reversed(claims))][::-1]  # of weight, from each claim on
    left = amount
    for place, ((level, at), rest) in enumerate(zip(claims, rests, strict=True)):
        if level * rest > left:  # the water ends below this one's level: it and all that follow share what is left
            for _, each in claims[place:]:
                given[each] = min(left * weight[each] / rest, want[each])
            break
        given[at] = want[at]
        left -= want[at]
    return given


def divide(
    total: int,
    request: Sequence[int],
    quota: Sequence[int],
    limit: Sequence[int],
    weight: Sequence[float],
    priority: Sequence[int],
) -> list[int]:
    """The fair share of each sibling in a resource of which there is ``total``.

    Everyone gets ``min(request, limit, quota)`` even where quotas promise more than there is (a promise
    is kept before anything is shared); what then remains goes to the highest priority first and there by
    weight, capped by request and limit. Rounded down to whole units.
    """
    want = [min(asked, most) for asked, most in zip(request, limit, strict=True)]
    owed = [min(wanted, own) for wanted, own in zip(want, quota, strict=True)]
    share = [float(own) for own in owed]
    surplus = float(total - sum(owed))
    for rank in sorted(set(priority), reverse=True):
        if surplus <= 0:
            break
        tier = [at for at, known in enumerate(priority) if known == rank]
        given = water_fill(surplus, [float(want[at] - owed[at]) for at in tier], [weight[at] for at in tier])
        for at, more in zip(tier, given, strict=True):
            share[at] += more
            surplus -= more
    # a hair is added so that 2.9999999 of exact arithmetic is 3
    return [math.floor(part * (1 + 1e-12) + 1e-6) for part in share]
