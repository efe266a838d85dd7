"""Dividing a resource among siblings: quota first, then the surplus by priority and weight.

The surplus of one priority is divided by weighted water-filling in closed form: sort by request/weight,
take prefix sums, and the water level follows without iteration (progressive filling as in max-min
fairness: D. Bertsekas, R. Gallager, Data Networks, 2nd ed., §6.5.2; the weighted form as in weighted
max-min).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

UNBOUNDED = 2**62
"""Stands for "no quota is set" and "no limit is set" in arrays of amounts."""


def water_fill(amount: float, want: Floats, weight: Floats) -> Floats:
    """Divides ``amount`` in proportion to ``weight``, nobody above ``want``. O(n log n).

    Entries of weight 0 get nothing. What nobody wants is left over.
    """
    given = np.zeros(len(want))
    claims = np.flatnonzero((weight > 0) & (want > 0))
    if amount <= 0 or not claims.size:
        return given
    level = want[claims] / weight[claims]
    order = np.argsort(level, kind="stable")
    claims, level = claims[order], level[order]
    filled = np.cumsum(want[claims])
    rest = weight[claims].sum() - np.cumsum(weight[claims])
    # amount needed to bring the water to each claim's own level
    needed = filled + level * np.maximum(rest, 0.0)
    full = int(np.searchsorted(needed, amount, side="right"))
    given[claims[:full]] = want[claims[:full]]
    if full < claims.size:
        left = amount - (filled[full - 1] if full else 0.0)
        open_claims = claims[full:]
        given[open_claims] = np.minimum(left * weight[open_claims] / weight[open_claims].sum(), want[open_claims])
    return given


def divide(total: int, request: Ints, quota: Ints, limit: Ints, weight: Floats, priority: Ints) -> Ints:
    """The fair share of each sibling in a resource of which there is ``total``.

    Everyone gets ``min(request, limit, quota)`` even where quotas promise more than there is (a promise
    is kept before anything is shared); what then remains goes to the highest priority first and there by
    weight, capped by request and limit. Rounded down to whole units.
    """
    want = np.minimum(request, limit)
    owed = np.minimum(want, quota)
    share = owed.astype(np.float64)
    surplus = float(total - int(owed.sum()))
    for rank in sorted({int(p) for p in priority}, reverse=True):
        if surplus <= 0:
            break
        tier = np.flatnonzero(priority == rank)
        given = water_fill(surplus, (want[tier] - owed[tier]).astype(np.float64), weight[tier])
        share[tier] += given
        surplus -= float(given.sum())
    # a hair is added so that 2.9999999 of exact arithmetic is 3
    return np.floor(share * (1 + 1e-12) + 1e-6).astype(np.int64)


def alone(total: int, want: int, quota: int, weight: float) -> int:
    """The same for one that has no siblings, and wants no more than its limit: without arrays."""
    owed = min(want, quota)
    return owed + max(0, min(want - owed, total - owed)) if weight > 0 else owed
