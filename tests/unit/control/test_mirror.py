"""The engine's state follows the objects."""

from typing import Any

import msgspec

from heddle.api.core import Node
from heddle.api.pod import Pod
from heddle.control.scheduling.mirror import Mirror


def node(gpus: int) -> Node:
    form = {
        "metadata": {"name": "n"},
        "status": {
            "allocatable": {"cpu": "8", "pods": "110", "nvidia.com/gpu": str(gpus)},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }
    return msgspec.convert(form, Node)


def pod(name: str) -> Pod:
    limits = {"resources": {"limits": {"cpu": "1", "nvidia.com/gpu": "2"}}}
    form: dict[str, Any] = {
        "metadata": {"name": name, "namespace": "ns", "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"nodeName": "n", "containers": [{"name": "c", **limits}]},
    }
    return msgspec.convert(form, Pod)


def used(mirror: Mirror) -> int:
    """GPUs in use on the node."""
    row = mirror.state.nodes.row["n"]
    return int(mirror.state.nodes.capacity[row, 0] - mirror.state.nodes.land[row, 0]) // 1000


def told(mirror: Mirror, pods: list[Pod]) -> None:
    for one in pods:
        mirror.workload(f"ns/{one.metadata.name}", None, [one])


def test_a_node_that_went_and_came_back_has_its_pods_again() -> None:
    mirror, pods = Mirror(), [pod("a"), pod("b")]
    mirror.node("n", node(8))
    told(mirror, pods)
    assert used(mirror) == 4
    assert mirror.node("n", None) == {"ns/a", "ns/b"}
    told(mirror, pods)  # they are on a node that is not there
    assert mirror.node("n", node(8)) == {"ns/a", "ns/b"}
    told(mirror, pods)
    assert used(mirror) == 4


def test_devices_that_went_and_came_back_have_their_users_again() -> None:
    mirror, pods = Mirror(), [pod("a"), pod("b")]
    mirror.node("n", node(8))
    told(mirror, pods)
    mirror.node("n", node(0))  # as while a device plugin starts again
    told(mirror, pods)
    assert mirror.node("n", node(8)) >= {"ns/a", "ns/b"}
    told(mirror, pods)
    assert used(mirror) == 4


def test_a_pod_is_known_before_its_node() -> None:
    mirror, pods = Mirror(), [pod("a")]
    told(mirror, pods)
    assert mirror.node("n", node(8)) == {"ns/a"}
    told(mirror, pods)
    assert used(mirror) == 2
