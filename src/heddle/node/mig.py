"""What a GPU in MIG mode is cut into, in the engine's words: its geometry, and where its instances are.

NVML tells where an instance begins to privileged users only. Who uses instances that there are need not know it: any
arrangement that the placement tables allow stands for the true one. So none is asked for, and the first is taken.
"""

from collections.abc import Sequence

from heddle.engine.mig import GEOMETRIES
from heddle.node.models import MODELS

_MIB = 1024
_BY_MODEL = (
    ("A30", 0, "A30"), ("A100", 48, "A100-40GB"), ("A100", 0, "A100-80GB"), ("H100", 88, "H100-80GB"),
    ("H200", 0, "H200-141GB"), ("B200", 0, "B200-180GB"),
)  # fmt: skip
"""Word of a product's name, GiB below which it counts (0 = any), geometry."""


def geometry_of(product: str, memory_mib: int) -> str:
    """The geometry of a product; "" = none that heddle knows."""
    words = product.replace("-", " ").split()
    for word, below, geometry in _BY_MODEL:
        if word in words and (not below or memory_mib < below * _MIB):
            return geometry
    return ""


def arranged(geometry: str, profiles: Sequence[str]) -> list[int] | None:
    """A start for each of the instances of one GPU; None = they do not fit beside each other, or are none of its."""
    known = GEOMETRIES.get(geometry)
    if known is None:
        return None
    found = [known.profile(name) for name in profiles]
    if any(profile is None for profile in found):
        return None
    order = sorted(range(len(found)), key=lambda at: (-(found[at].size if found[at] else 0), at))  # type: ignore[union-attr]
    starts = [-1] * len(found)

    def place(rest: list[int], taken: frozenset[int]) -> bool:
        if not rest:
            return True
        profile = found[rest[0]]
        assert profile is not None
        for start in profile.starts:
            slots = frozenset(profile.slots(start, known.slices))
            if not slots & taken:
                starts[rest[0]] = start
                if place(rest[1:], taken | slots):
                    return True
        return False

    return starts if place(order, frozenset()) else None


def capable_models() -> list[str]:
    """Simulated models that can be cut."""
    return [name for name, model in MODELS.items() if geometry_of(model.product, model.memory_mib)]
