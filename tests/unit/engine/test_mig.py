"""MIG placement tables against NVIDIA's published configurations, and the choice of a start."""

from __future__ import annotations

import itertools

import pytest

from heddle.engine.mig import GEOMETRIES, Geometry, table


def packings(geometry: Geometry) -> set[tuple[str, ...]]:
    """Every maximal set of instances, as sorted names: nothing more fits beside it."""
    found = set()

    def grow(taken: int, names: tuple[str, ...]) -> None:
        further = False
        for profile in geometry.profiles:
            for start in profile.starts:
                bits = sum(1 << slot for slot in profile.slots(start, geometry.slices))
                if not taken & bits and not profile.media:
                    further = True
                    grow(taken | bits, tuple(sorted((*names, profile.name))))
        if not further:
            found.add(names)

    grow(0, ())
    return found


def shapes(geometry: Geometry) -> set[tuple[int, ...]]:
    """Maximal packings without the profile of double memory, which came later, as compute slices."""
    (double,) = (p.name for p in geometry.profiles if p.compute == 1 and p.size == 2)
    found = set()
    for names in packings(Geometry(8, tuple(p for p in geometry.profiles if p.name != double))):
        found.add(tuple(sorted((int(name[0]) for name in names), reverse=True)))
    return found


KNOWN = {
    (7,), (4, 3), (4, 2, 1), (4, 1, 1, 1), (3, 3), (3, 2, 1), (3, 1, 1, 1), (2, 2, 3), (2, 1, 1, 3), (1, 1, 2, 3),
    (1, 1, 1, 1, 3), (2, 2, 2, 1), (2, 1, 1, 2, 1), (1, 1, 2, 2, 1), (2, 1, 1, 1, 1, 1), (1, 1, 2, 1, 1, 1),
    (1, 1, 1, 1, 2, 1), (1, 1, 1, 1, 1, 1, 1),
}  # fmt: skip
"""The 18 valid combinations of instances on an A100, from NVIDIA's MIG User Guide, in the order of the slices."""


@pytest.mark.parametrize("name", [name for name in GEOMETRIES if name != "A30"])
def test_the_maximal_packings_are_those_that_nvidia_lists(name: str) -> None:
    assert shapes(GEOMETRIES[name]) == {tuple(sorted(known, reverse=True)) for known in KNOWN}


def test_an_a30_has_four_slices() -> None:
    found = packings(GEOMETRIES["A30"])
    assert found == {("4g.24gb",), ("2g.12gb",) * 2, ("1g.6gb", "1g.6gb", "2g.12gb"), ("1g.6gb",) * 4}


@pytest.mark.parametrize("name", GEOMETRIES)
def test_compute_slices_never_exceed_what_there_is(name: str) -> None:
    most = 4 if name == "A30" else 7
    assert max(sum(int(each[0]) for each in names) for names in packings(GEOMETRIES[name])) == most


def test_only_one_instance_has_the_media_engines() -> None:
    found = table(GEOMETRIES["A100-40GB"], "1g.5gb+me")
    assert found is not None
    assert found.fits[0b1_1111_1111] == 1
    assert found.fits[0b0_1111_1111] == 0


@pytest.mark.parametrize("name", ["A30", "A100-40GB"])  # the others differ in names
def test_tables_agree_with_trying(name: str) -> None:
    geometry = GEOMETRIES[name]
    for profile, free in itertools.product(geometry.profiles, range(1 << geometry.slots)):
        found = table(geometry, profile.name)
        assert found is not None
        bits = [sum(1 << slot for slot in profile.slots(start, geometry.slices)) for start in profile.starts]
        fitting = [one for one in bits if not one & ~free]
        most = max(
            len(some)
            for count in range(len(fitting) + 1)
            for some in itertools.combinations(fitting, count)
            if sum(some) == _union(some)
        )
        assert found.fits[free] == most
        assert (found.start[free] >= 0) == bool(fitting)
        if fitting:
            assert bits[profile.starts.index(int(found.start[free]))] in fitting


def _union(some: tuple[int, ...]) -> int:
    both = 0
    for one in some:
        both |= one
    return both


def test_a_start_spoils_as_little_as_may_be() -> None:
    geometry = GEOMETRIES["H100-80GB"]
    empty = (1 << 9) - 1

    def starts(*names: str) -> list[int]:
        free, found = empty, []
        for name in names:
            best, profile = table(geometry, name), geometry.profile(name)
            assert best is not None
            assert profile is not None
            found.append(int(best.start[free]))
            free &= ~sum(1 << slot for slot in profile.slots(found[-1], geometry.slices))
        return found

    assert starts("1g.10gb", "2g.20gb", "4g.40gb") == [6, 4, 0]  # small ones first, and all fit
    assert starts("3g.40gb", "4g.40gb") == [4, 0]
    assert starts(*["1g.10gb"] * 7)[:3] == [6, 5, 4]
    assert starts("1g.10gb", "3g.40gb", "2g.20gb") == [6, 0, 4]


def test_a_fixed_geometry_offers_what_is_cut_and_nothing_else() -> None:
    geometry = GEOMETRIES["A100-40GB"]
    cut = Geometry(8, geometry.profiles, (("3g.20gb", 0), ("1g.5gb", 4), ("1g.5gb", 5)))
    assert table(cut, "4g.20gb") is None
    found = table(cut, "1g.5gb")
    assert found is not None
    assert (int(found.fits[(1 << 9) - 1]), int(found.fits[0b1111])) == (2, 0)
