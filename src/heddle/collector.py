"""Python's search for cyclic garbage, kept out of the way of processes that hold many objects."""

import gc

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
