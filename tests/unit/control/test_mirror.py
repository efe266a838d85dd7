"""The engine's state follows the objects."""

from typing import Any

import msgspec

from heddle.api.core import Node
from heddle.api.meta import ObjectMeta
from heddle.api.pod import Pod
from heddle.api.queue import Queue
from heddle.api.workload import DEVICES_ANNOTATION, PodSet, Workload, WorkloadSpec
from heddle.control.scheduling.mirror import Mirror
from heddle.engine import Placement


def node(gpus: int) -> Node:
    form = {
        "metadata": {"name": "n"},
        "status": {
            "allocatable": {"cpu": "8", "pods": "110", "nvidia.com/gpu": str(gpus)},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }
    return msgspec.convert(form, Node)


def pod(name: str, gpus: int = 2) -> Pod:
    limits = {"resources": {"limits": {"cpu": "1", "nvidia.com/gpu": str(gpus)}}}
    form: dict[str, Any] = {
        "metadata": {"name": name, "namespace": "ns", "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"nodeName": "n", "containers": [{"name": "c", **limits}]},
    }
    return msgspec.convert(form, Pod)


def used(mirror: Mirror) -> int:
    """GPUs in use on the node."""
    return taken(mirror, "gpu") // 1000


def taken(mirror: Mirror, resource: str) -> int:
    """How much of a resource is in use on the node."""
    nodes, at = mirror.state.nodes, mirror.state.column[resource]
    row = nodes.row["n"]
    return int(nodes.capacity[row, at] - nodes.land[row, at])


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


def bind_assumed(mirror: Mirror) -> Pod:
    """A pod that we have bound, as the watch still tells of it."""
    waiting = msgspec.structs.replace(one := pod("a"), spec=msgspec.structs.replace(one.spec, node_name=""))
    pod_set = PodSet(name="pods", count=1, resources={"cpu": 1000, "nvidia.com/gpu": 2})
    work = Workload(metadata=ObjectMeta(name="a", namespace="ns"), spec=WorkloadSpec(queue="q", pod_sets=[pod_set]))
    mirror.queue("q", Queue(metadata=ObjectMeta(name="q")))
    mirror.workload("ns/a", work, [waiting], sets={"a": "pods"})
    mirror.assume_bound(Placement("ns/a", "pods", "a", "n", ("n/0", "n/1")), 0.0)
    return waiting


def tell_of_assumed(mirror: Mirror, waiting: Pod) -> None:
    mirror.workload("ns/a", None, [waiting])


def test_a_bind_of_ours_is_known_again_on_a_node_that_went_and_came_back_before_it_was_confirmed() -> None:
    mirror = Mirror()
    mirror.node("n", node(8))
    waiting = bind_assumed(mirror)
    assert used(mirror) == 2
    assert mirror.node("n", None) == {"ns/a"}
    tell_of_assumed(mirror, waiting)
    assert mirror.node("n", node(8)) == {"ns/a"}
    tell_of_assumed(mirror, waiting)
    assert used(mirror) == 2


def test_a_bind_of_ours_is_known_to_a_state_that_is_made_anew_before_it_was_confirmed() -> None:
    mirror, other = Mirror(), Mirror()
    for each in (mirror, other):
        each.node("n", node(8))
    waiting = bind_assumed(mirror)
    other.assumed = mirror.assumed
    tell_of_assumed(other, waiting)
    assert used(other) == 2
    other.forget_bound(Placement("ns/a", "pods", "a", "n"), "a")
    assert used(other) == 0
    tell_of_assumed(other, waiting)
    assert used(other) == 0


def test_a_bind_that_failed_gives_up_no_place_that_others_gave_the_pod() -> None:
    mirror = Mirror()
    mirror.node("n", node(8))
    bind_assumed(mirror)
    told(mirror, [pod("a")])  # it is there: whoever bound it
    mirror.confirmed("a")
    mirror.forget_bound(Placement("ns/a", "pods", "a", "another"), "a")
    assert used(mirror) == 2


def test_a_pod_that_may_not_be_evicted_has_its_place_again() -> None:
    mirror, one = Mirror(), pod("a")
    mirror.node("n", node(8))
    told(mirror, [one])
    mirror.assume_leaving("ns/a", "a")
    assert not mirror.has_place("ns/a", "a")
    mirror.stays("ns/a", "a")
    told(mirror, [one])
    assert mirror.has_place("ns/a", "a")
    assert used(mirror) == 2


def test_a_pod_is_known_before_its_node() -> None:
    mirror, pods = Mirror(), [pod("a")]
    told(mirror, pods)
    assert mirror.node("n", node(8)) == {"ns/a"}
    told(mirror, pods)
    assert used(mirror) == 2


def test_a_pod_on_a_node_with_too_few_gpus_takes_all_else_and_those_that_are_free() -> None:
    mirror, pods = Mirror(), [pod("a"), pod("b", 4)]
    mirror.node("n", node(3))
    told(mirror, pods)
    assert (used(mirror), taken(mirror, "cpu"), taken(mirror, "pods")) == (3, 2000, 2)
    told(mirror, pods)  # it is not counted twice
    assert (used(mirror), taken(mirror, "cpu"), taken(mirror, "pods")) == (3, 2000, 2)
    mirror.workload("ns/b", None, [])
    assert (used(mirror), taken(mirror, "cpu"), taken(mirror, "pods")) == (2, 1000, 1)


def test_devices_that_went_keep_nothing_else_of_their_users_from_counting() -> None:
    mirror, pods = Mirror(), [pod("a"), pod("b")]
    mirror.node("n", node(8))
    told(mirror, pods)
    assert mirror.node("n", node(0)) == {"ns/a", "ns/b"}
    told(mirror, pods)
    assert (used(mirror), taken(mirror, "cpu"), taken(mirror, "pods")) == (0, 2000, 2)
    assert mirror.node("n", None) == {"ns/a", "ns/b"}
    told(mirror, pods)
    assert mirror.node("n", node(8)) == {"ns/a", "ns/b"}
    told(mirror, pods)
    assert (used(mirror), taken(mirror, "cpu"), taken(mirror, "pods")) == (4, 2000, 2)


def test_a_pod_that_names_its_devices_takes_no_others_in_their_place() -> None:
    mirror, one = Mirror(), pod("a")
    one.metadata.annotations[DEVICES_ANNOTATION] = "n/1,n/5"
    mirror.node("n", node(4))
    told(mirror, [one])
    assert (used(mirror), taken(mirror, "cpu")) == (1, 1000)
    assert mirror.state.places.unused_devices("n") == ("n/0", "n/2", "n/3")
