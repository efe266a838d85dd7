"""MIG instances as Kubernetes knows them: a resource for each profile, named as by NVIDIA's device plugin."""

import difflib
import re
from collections.abc import Iterable

from heddle.api import quantity
from heddle.api.meta import Resources

MIG_PREFIX = "nvidia.com/mig-"
"""Before a profile it is a resource; `+` in the profile's name is written as a dot: nvidia.com/mig-1g.10gb.me."""
INSTANCE_PREFIX = "MIG-"
"""Before a UUID it is the id of an instance, as NVML and CUDA_VISIBLE_DEVICES have it."""


PROFILES = (
    "1g.5gb", "1g.5gb+me", "1g.6gb", "1g.6gb+me", "1g.10gb", "1g.10gb+me", "1g.18gb", "1g.18gb+me", "1g.20gb",
    "1g.23gb", "1g.23gb+me", "1g.35gb", "1g.45gb", "2g.10gb", "2g.12gb", "2g.20gb", "2g.35gb", "2g.45gb", "3g.20gb",
    "3g.40gb", "3g.71gb", "3g.90gb", "4g.20gb", "4g.24gb", "4g.40gb", "4g.71gb", "4g.90gb", "7g.40gb", "7g.80gb",
    "7g.141gb", "7g.180gb",
)  # fmt: skip
"""Those of the GPUs of which heddle has placement tables (`heddle.engine.mig`, which knows no object model)."""


RESOURCE_PATTERN = f"^{MIG_PREFIX.replace('.', '[.]')}([1-7]c[.])?[1-7]g[.][1-9][0-9]*gb([.-][a-z]+)*$"
"""The form of such resources, for Python and for CEL: compute instances, compute slices, memory, further engines."""


def well_formed(profile: str) -> bool:
    """Whether this could be a profile of some GPU."""
    return re.fullmatch(RESOURCE_PATTERN, resource_of(profile)) is not None


def resource_of(profile: str) -> str:
    """The resource of a profile."""
    return MIG_PREFIX + profile.replace("+", ".")


def profile_of(resource: str) -> str:
    """The profile of such a resource, as NVIDIA writes it elsewhere."""
    text = resource.removeprefix(MIG_PREFIX)
    for extra in (".me", ".gfx"):
        text = text.replace(extra, extra.replace(".", "+"))
    return text


def asked_of(resources: Resources) -> dict[str, int]:
    """Profiles that are asked for, and how many of each, in thousandths."""
    found = {name: quantity.milli(value) for name, value in resources.items() if name.startswith(MIG_PREFIX)}
    return {profile_of(name): count for name, count in found.items() if count}


def instances_in(ids: Iterable[str]) -> int:
    """How many of some device ids are those of instances."""
    return sum(one.startswith(INSTANCE_PREFIX) for one in ids)


def unknown(profile: str) -> str:
    """What to say of a profile that none of these GPUs has; "" where one has it."""
    if profile in PROFILES:
        return ""
    close = difflib.get_close_matches(profile, PROFILES, n=1)
    meant = f"did you mean {resource_of(close[0])}? " if close else ""
    return f"no GPU that heddle knows has this MIG profile; {meant}profiles: {', '.join(PROFILES)}"


def nearest(profile: str, offered: Iterable[str]) -> list[str]:
    """Some of the profiles that are offered, those that are written most alike first."""
    return difflib.get_close_matches(profile, sorted(offered), n=3, cutoff=0.0)
