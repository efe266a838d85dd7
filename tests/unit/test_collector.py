"""Python's search for cyclic garbage, kept out of the way."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from heddle import collector


@pytest.fixture(autouse=True)
def search() -> Iterator[None]:
    """What a test changes for the whole process is put back."""
    thresholds = gc.get_threshold()
    yield
    gc.enable()
    gc.unfreeze()
    gc.set_threshold(*thresholds)


class Knot:
    """Garbage that only the search finds."""

    def __init__(self) -> None:
        self.me = self


def test_nothing_is_searched_in_a_pause_which_ends_with_a_fault_too() -> None:
    def fault() -> None:
        with collector.paused():
            assert not gc.isenabled()
            raise ValueError("once")

    with pytest.raises(ValueError, match="once"):
        fault()
    assert gc.isenabled()
    gc.disable()
    with collector.paused():
        pass
    assert not gc.isenabled(), "who had turned it off is not overruled"


def test_nothing_is_searched_until_the_last_of_several_pauses_ends() -> None:
    first, second = collector.paused(), collector.paused()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not gc.isenabled()
    second.__exit__(None, None, None)
    assert gc.isenabled()


def test_what_is_kept_is_not_looked_at_until_it_is_released() -> None:
    kept = Knot()
    told = weakref.ref(kept)
    collector.keep()
    del kept
    gc.collect()
    assert told() is not None
    collector.release()
    gc.collect()
    assert told() is None
