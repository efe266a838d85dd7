"""One GPU model for all tasks of a pod set that may use several: which are tried, and in which order.

While a choice is tried the classes of the workload (`Work.parts`) are those of one model each. What tasks have
already decides: where some of a pod set run or have a place promised, the rest goes to the same model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice, product
from typing import TYPE_CHECKING

from heddle.engine.scores import RequestClass

if TYPE_CHECKING:
    from heddle.engine.placement import Need
    from heddle.engine.work import Work

_MOST = 16
"""So many combinations are tried where several pod sets may choose."""


def first_choice(work: Work, need: Need, attempt: Callable[[], bool]) -> bool:
    """Whether an attempt succeeds with some choice of models for a need; the first by preference counts."""
    if not work.chooses:
        return attempt()
    for parts in islice(_choices(work, need), _MOST):
        work.parts = parts
        try:
            if attempt():
                return True
        finally:
            work.parts = list(work.bases)
    return False


def _choices(work: Work, need: Need) -> Iterator[list[RequestClass]]:
    wanted = [part for part, _ in need]
    for chosen in product(*(_options(work, part) for part in wanted)):
        parts = list(work.bases)
        for part, cls in zip(wanted, chosen, strict=True):
            parts[part] = cls
        yield parts


def _options(work: Work, part: int) -> tuple[RequestClass, ...]:
    base = work.bases[part]
    if not base.options:
        return (base,)
    row = work.home(part)
    for task in work.order[part] if work.held else ():
        if task.hold is not None:
            row = task.hold[0]
            break
    if row < 0:
        return base.options
    here = base.beside(row)
    return () if here is None else (here,)
