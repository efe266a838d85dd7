"""MIG instances as Kubernetes knows them: a resource for each profile, named as by NVIDIA's device plugin."""

from collections.abc import Iterable

from heddle.api import quantity
from heddle.api.meta import Resources

MIG_PREFIX = "nvidia.com/mig-"
"""Before a profile it is a resource; `+` in the profile's name is written as a dot: nvidia.com/mig-1g.10gb.me."""
INSTANCE_PREFIX = "MIG-"
"""Before a UUID it is the id of an instance, as NVML and CUDA_VISIBLE_DEVICES have it."""


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
