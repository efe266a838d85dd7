"""MIG: where on a GPU its instances can be, and where the next one should go.

The memory of a GPU is an axis of slices, and each profile may begin at some of them only: a placement is
``start:size``. Two instances fit beside each other iff their ranges do not overlap; that compute slices never sum to
more than 7 follows from the tables. Placements as printed by ``nvidia-smi mig -lgipp`` (NVIDIA MIG User Guide,
"Supported MIG Profiles"); for H200 and B200 they are inferred from equal fractions of eight slices.

A new instance goes where it spoils least: where the placements that it makes impossible, of all profiles, each
counted by its size, are fewest. This is the rule of least growth of fragmentation for MIG (Zambianco, Fasol,
Doriguzzi-Corin, "Online Fragmentation-Aware GPU Scheduler for Multi-Tenant MIG-based Clouds", 2025), which is that of
Weng et al. (USENIX ATC 2023) with profiles in place of typical tasks. Equals go to the highest start, as the driver's
do: the low end is where the large ones can be.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Instance = tuple[str, int]
"""A profile and its start."""

NEVER = 1 << 30
"""Spoiling of a placement that there is not."""


@dataclass(frozen=True, slots=True)
class Profile:
    """One way to cut a GPU.

    Attributes:
        name: as NVIDIA's, without the prefix of its resource: ``3g.40gb``.
        compute: compute slices.
        size: memory slices.
        starts: where it may begin.
        media: it has the media engines that only one instance can have (``+me``).
    """

    name: str
    compute: int
    size: int
    starts: tuple[int, ...]
    media: bool = False

    def slots(self, start: int, slices: int) -> tuple[int, ...]:
        """What it takes of a GPU: memory slices, and last the media engines."""
        return (*range(start, start + self.size), *((slices,) if self.media else ()))


@dataclass(frozen=True)
class Geometry:
    """What a GPU model can be cut into: its memory slices, and its profiles.

    ``fixed``: the instances that there are; None = free ranges may be cut anew at any time.
    """

    slices: int
    profiles: tuple[Profile, ...]
    fixed: tuple[Instance, ...] | None = None

    @property
    def slots(self) -> int:
        """Things of which each has one user at most: slices, and the media engines."""
        return self.slices + 1

    def profile(self, name: str) -> Profile | None:
        """The profile of a name; None = it has none."""
        return next((profile for profile in self.profiles if profile.name == name), None)

    def share(self, profile: Profile) -> int:
        """Thousandths of a GPU that it counts for: its part of the memory slices."""
        return -(-profile.size * 1000 // self.slices)

    def starts(self, profile: Profile) -> tuple[int, ...]:
        """Where a profile may begin, as the GPU is cut."""
        if self.fixed is None:
            return profile.starts
        return tuple(sorted(start for name, start in self.fixed if name == profile.name))

    @cached_property
    def _placements(self) -> list[tuple[int, int]]:
        """Bits and size of every placement of every profile."""
        every = [(profile, start) for profile in self.profiles for start in self.starts(profile)]
        return [(_bits(profile.slots(start, self.slices)), profile.size) for profile, start in every]

    def worth(self, free: int) -> int:
        """Sizes of all placements, taken one by one, for which there is room."""
        return sum(size for bits, size in self._placements if not bits & ~free)


def _bits(slots: tuple[int, ...]) -> int:
    return sum(1 << slot for slot in slots)


@dataclass(frozen=True, slots=True)
class Table:
    """Of one profile, by the free slots of a GPU as bits.

    Attributes:
        start: where it should begin; -1 = it has no room.
        spoils: what is then no longer possible; :data:`NEVER` = it has no room.
        fits: how many instances there is room for.
    """

    start: Ints
    spoils: Ints
    fits: Ints


@cache
def table(geometry: Geometry, name: str) -> Table | None:
    """The table of a profile; None = the GPU has no such profile, or none is cut."""
    profile = geometry.profile(name)
    starts = geometry.starts(profile) if profile is not None else ()
    if profile is None or not starts:
        return None
    count = 1 << geometry.slots
    start, spoils, fits = np.full(count, -1), np.full(count, NEVER), np.zeros(count, np.int64)
    worth = [geometry.worth(free) for free in range(count)]
    places = [(at, _bits(profile.slots(at, geometry.slices))) for at in starts]
    for free in range(count):
        for at, bits in places:
            spoiled = worth[free] - worth[free & ~bits]
            if not bits & ~free and spoiled <= spoils[free]:
                start[free], spoils[free] = at, spoiled
        left = free
        for _, bits in places:  # placements of one profile lie side by side, so greedy is most
            if not bits & ~left:
                left &= ~bits
                fits[free] += 1
    return Table(start.astype(np.int64), spoils.astype(np.int64), fits)


def _eight(one: str, double: str, two: str, three: str, four: str, seven: str) -> Geometry:
    """Eight slices; memory sizes of the profiles as they are in names."""
    return Geometry(
        8,
        (
            Profile(f"1g.{one}gb", 1, 1, (0, 1, 2, 3, 4, 5, 6)),
            Profile(f"1g.{one}gb+me", 1, 1, (0, 1, 2, 3, 4, 5, 6), media=True),
            Profile(f"1g.{double}gb", 1, 2, (0, 2, 4, 6)),
            Profile(f"2g.{two}gb", 2, 2, (0, 2, 4)),
            Profile(f"3g.{three}gb", 3, 4, (0, 4)),
            Profile(f"4g.{four}gb", 4, 4, (0,)),
            Profile(f"7g.{seven}gb", 7, 8, (0,)),
        ),
    )


GEOMETRIES = {
    "A30": Geometry(
        4,
        (
            Profile("1g.6gb", 1, 1, (0, 1, 2, 3)),
            Profile("1g.6gb+me", 1, 1, (0, 1, 2, 3), media=True),
            Profile("2g.12gb", 2, 2, (0, 2)),
            Profile("4g.24gb", 4, 4, (0,)),
        ),
    ),
    "A100-40GB": _eight("5", "10", "10", "20", "20", "40"),
    "A100-80GB": _eight("10", "20", "20", "40", "40", "80"),
    "H100-80GB": _eight("10", "20", "20", "40", "40", "80"),
    "H200-141GB": _eight("18", "35", "35", "71", "71", "141"),
    "B200-180GB": _eight("23", "45", "45", "90", "90", "180"),
}
"""By model and memory."""


def geometry_of(name: str, fixed: tuple[Instance, ...] | None = None) -> Geometry:
    """The geometry of a GPU by name, and with the instances that there are.

    Raises:
        ValueError: it is not known, or the instances do not fit.
    """
    known = GEOMETRIES.get(name)
    if known is None:
        raise ValueError(f"mig.geometry: {name!r} is not known; use one of {', '.join(GEOMETRIES)}")
    taken = 0
    for profile_name, start in fixed or ():
        profile = known.profile(profile_name)
        if profile is None or start not in profile.starts:
            raise ValueError(
                f"mig.instances: {profile_name!r} at {start!r} is not possible on {name}; see its placements"
            )
        bits = _bits(profile.slots(start, known.slices))
        if taken & bits:
            raise ValueError(f"mig.instances: {profile_name!r} at {start!r} overlaps another; leave one of them out")
        taken |= bits
    return known if fixed is None else Geometry(known.slices, known.profiles, tuple(sorted(fixed)))
