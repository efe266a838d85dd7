"""What a pod takes of its node, as the kubelet and kube-scheduler reckon it."""

from collections.abc import Iterable

from heddle.api import quantity
from heddle.api.meta import Resources
from heddle.api.pod import Container, Pod, ResourceRequirements

PODS = "pods"
"""Resource of a node: how many pods it takes."""

PORT = "hostPort:"
"""Before a port it is a resource of a node (no resource of Kubernetes can have this name)."""

Amounts = dict[str, int]
"""By resource, in thousandths."""


def of(pod: Pod) -> Amounts:
    """Its effective request, in thousandths of each resource, its own place among the node's pods included.

    The larger of what its containers ask for together and what its init containers need at any moment; sidecars (init
    containers that are restarted always) count beside all that come after them; `spec.resources` stands in place of the
    sum where it is given; overhead is added. Source: k8s.io/component-helpers/resource, PodRequests.
    """
    spec = pod.spec
    total = _sum(spec.containers)
    sidecars: Amounts = {}
    before: Amounts = {}
    for init in spec.init_containers:
        asked = _asked(init.resources)
        if init.restart_policy == "Always":
            _add(sidecars, asked)
            _add(total, asked)
            before = _largest(before, sidecars)
        else:
            _add(asked, sidecars)
            before = _largest(before, asked)
    total = _largest(total, before)
    if spec.resources is not None:
        total |= _asked(spec.resources)
    _add(total, _milli(spec.overhead))
    total[PODS] = 1000
    if has_ports(pod):
        total |= dict.fromkeys(ports(pod), 1000)
    return {name: value for name, value in total.items() if value}


def ports(pod: Pod) -> set[str]:
    """The ports that it takes of its node, as resources of which each node has one.

    Addresses are not told apart: two pods that use one port at different addresses of a node do not share it.
    """
    spec = pod.spec
    sidecars = [init for init in spec.init_containers if init.restart_policy == "Always"]
    return {
        f"{PORT}{port.protocol or 'TCP'}/{port.host_port}"
        for container in (*spec.containers, *sidecars)
        for port in container.ports
        if port.host_port
    }


def has_ports(pod: Pod) -> bool:
    """Whether any of its containers names ports: most do not."""
    spec = pod.spec
    return any(c.ports for c in spec.containers) or any(c.ports for c in spec.init_containers)


def claims_of(pod: Pod) -> list[tuple[str, str]]:
    """Volumes of a pod that are claims, each with the claim as `namespace/name`."""
    found = []
    for volume in pod.spec.volumes:
        if volume.persistent_volume_claim:
            found.append((volume.name, f"{pod.metadata.namespace}/{volume.persistent_volume_claim.claim_name}"))
        elif volume.ephemeral:
            found.append((volume.name, f"{pod.metadata.namespace}/{pod.metadata.name}-{volume.name}"))
    return found


def resources(amounts: Amounts) -> Resources:
    """Amounts as Kubernetes writes them."""
    return {name: value // 1000 if value % 1000 == 0 else f"{value}m" for name, value in amounts.items()}


def _milli(values: Resources) -> Amounts:
    return {name: quantity.milli(value) for name, value in values.items()}


def _asked(requirements: ResourceRequirements) -> Amounts:
    """Requests, and limits where nothing is requested."""
    return _milli({**requirements.limits, **requirements.requests})


def _sum(containers: Iterable[Container]) -> Amounts:
    total: Amounts = {}
    for container in containers:
        _add(total, _asked(container.resources))
    return total


def _add(total: Amounts, more: Amounts) -> None:
    for name, value in more.items():
        total[name] = total.get(name, 0) + value


def _largest(one: Amounts, other: Amounts) -> Amounts:
    return {name: max(one.get(name, 0), other.get(name, 0)) for name in {**one, **other}}
