"""Python's search for cyclic garbage, kept out of the way of processes that hold many objects."""

import contextlib
import gc
from collections.abc import Iterator

_YOUNG, _MIDDLE, _OLD = 50_000, 10, 10
"""Objects made and kept before the young are looked at; and how many such looks before the next older are."""


def relax() -> None:
    """Look for cyclic garbage every five million objects that are kept, not every few ten thousand.

    A process that reads a cluster makes millions of objects that stay. By its defaults Python walks all of them again
    for each quarter more: a third of the processor time of a controller that starts, and pauses of half a second. What
    is there now, mostly modules, is never looked at again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)


def keep() -> None:
    """What is there now stays: it is never looked at again, until `release`."""
    gc.freeze()


def release() -> None:
    """What was to stay may go."""
    gc.unfreeze()


_pauses = 0
_searched = True


@contextlib.contextmanager
def paused() -> Iterator[None]:
    """No search meanwhile: it stops everything for up to a quarter of a second. Pauses may overlap."""
    global _pauses, _searched
    if not _pauses:
        _searched = gc.isenabled()
        gc.disable()
    _pauses += 1
    try:
        yield
    finally:
        _pauses -= 1
        if _searched and not _pauses:
            gc.enable()
