"""MIG instances between objects and the engine: what pods ask for, what nodes list, which id a place has.

Only where nodes list their instances does heddle say which one a pod gets. Elsewhere such a resource is a count that a
node offers, like any other.
"""

import json
from collections.abc import Collection
from typing import Any

from heddle.api import mig as api
from heddle.api.core import DEVICES_INVENTORY_ANNOTATION, Node
from heddle.api.meta import Resources
from heddle.api.mig import INSTANCE_PREFIX, asked_of, nearest, resource_of, unknown
from heddle.engine import Mig, Placement

Where = tuple[str, tuple[str, int]]
"""Device, and the profile and start of an instance on it."""


def profile_of(resources: Resources) -> str:
    """The profile of which a pod gets one instance; "" = none.

    Raises:
        ValueError: it asks for more than one, or for one that there is nowhere.
    """
    asked = asked_of(resources)
    if not asked:
        return ""
    (profile, count), *others = asked.items()
    if others or count != 1000:
        wanted = ", ".join(resource_of(name) for name in asked)
        raise ValueError(f"resources: {wanted}: a pod uses one MIG instance; ask for 1 of one profile")
    if wrong := unknown(profile):
        raise ValueError(f"resources[{resource_of(profile)}]: {wrong}")
    return profile


def not_offered(asked: Collection[str], offered: Collection[str]) -> list[str]:
    """For people: of the resources that are asked for those that no node has, each with the nearest that some have."""
    if not offered:
        some = "no node offers MIG instances (of NVIDIA's device plugin they are resources with mig.strategy mixed)"
        return [some] if asked else []
    profiles = {api.profile_of(name): name for name in offered}
    return [
        f"no node offers {name}; the nearest that some offer: "
        + ", ".join(profiles[each] for each in nearest(api.profile_of(name), profiles))
        for name in sorted(asked)
        if name not in offered
    ]


def mig_of(device: dict[str, Any]) -> Mig | None:
    """How a listed device is cut; None = it is not in MIG mode.

    Raises:
        ValueError: it is cut in a way that the engine does not know.
    """
    cut = device.get("mig")
    if not cut:
        return None
    return Mig(str(cut["geometry"]), tuple((str(one["profile"]), int(one["start"])) for one in cut["instances"]))


def _listed(node: Node | None) -> dict[str, Where]:
    """The instances of a node by id."""
    try:
        text = node.metadata.annotations.get(DEVICES_INVENTORY_ANNOTATION, "[]") if node is not None else "[]"
        return {
            str(one["id"]): (str(device["id"]), (str(one["profile"]), int(one["start"])))
            for device in json.loads(text)
            for one in (device.get("mig") or {}).get("instances", ())
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def placed(node: Node | None, place: Placement) -> Placement:
    """A place of which the devices are as objects have them, as the engine says it."""
    if len(place.devices) != 1 or not place.devices[0].startswith(INSTANCE_PREFIX):
        return place
    device, instance = _listed(node).get(place.devices[0], ("", None))
    return Placement(
        place.workload, place.pod_set, place.task, place.node, (device,) if device else place.devices, instance
    )


def ids(node: Node | None, place: Placement) -> tuple[str, ...]:
    """The devices of a place as objects have them."""
    if place.instance is None:
        return place.devices
    at = (place.devices[0], place.instance)
    return tuple(name for name, where in _listed(node).items() if where == at)
