"""How many free volumes nodes have."""

from typing import Any

import msgspec
import pytest

from heddle.api.core import Node
from heddle.api.pod import Pod
from heddle.api.volumes import NO_PROVISIONER, PersistentVolume, PersistentVolumeClaim, StorageClass
from heddle.control.grouping.disks import HOSTNAME
from heddle.control.grouping.volumes import Volumes

ONE_GI = f"free volumes of local ({2**30} Filesystem ReadWriteOnce)"


class World:
    """Nodes n and m, and a class of local volumes."""

    def __init__(self, provisioner: str = NO_PROVISIONER) -> None:
        self.claims: dict[str, PersistentVolumeClaim] = {}
        self.disks: dict[str, PersistentVolume] = {}
        self.nodes: dict[str, Node] = {}
        late = {"provisioner": provisioner, "volumeBindingMode": "WaitForFirstConsumer"}
        kind = msgspec.convert({"metadata": {"name": "local"}, **late}, StorageClass)
        self.found = Volumes(self.claims, self.disks, {"local": kind}, nodes=self.nodes)
        for name in "nm":
            self.node(name)

    def node(self, name: str) -> None:
        new = msgspec.convert({"metadata": {"name": name, "labels": {HOSTNAME: f"host-{name}"}}}, Node)
        self.found.disks.node_changed(self.nodes.get(name), new)
        self.nodes[name] = new

    def disk(self, name: str, *hosts: str, phase: str = "Available", size: str = "1Gi", **spec: Any) -> set[str]:
        demand = {"key": HOSTNAME, "operator": "In", "values": [f"host-{host}" for host in hosts]}
        affinity = {"required": {"nodeSelectorTerms": [{"matchExpressions": [demand]}]}}
        body = {
            "capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "storageClassName": "local",
            "nodeAffinity": affinity, **spec,
        }  # fmt: skip
        new = msgspec.convert({"metadata": {"name": name}, "spec": body, "status": {"phase": phase}}, PersistentVolume)
        touched = self.found.disks.volume_changed(self.disks.get(name), new)
        self.found.volume_changed(self.disks.get(name), new)
        self.disks[name] = new
        return touched

    def claim(self, name: str, size: str = "1Gi", **spec: Any) -> set[str]:
        wish = {"storageClassName": "local", "accessModes": ["ReadWriteOnce"]}
        body = wish | {"resources": {"requests": {"storage": size}}} | spec
        made = msgspec.convert({"metadata": {"name": name, "namespace": "ns"}, "spec": body}, PersistentVolumeClaim)
        self.claims[made.key] = made
        return self.found.disks.learn(made)

    def asked(self, *claims: str, beside: tuple[str, ...] = ()) -> dict[str, int]:
        new, *others = (self._pod(name, mine) for name, mine in (("new", claims), ("other", beside)))
        return self.found.asked(new, [new, *others])

    def _pod(self, name: str, claims: tuple[str, ...]) -> Pod:
        volumes = [{"name": each, "persistentVolumeClaim": {"claimName": each}} for each in claims]
        return msgspec.convert({"metadata": {"name": name, "namespace": "ns"}, "spec": {"volumes": volumes}}, Pod)

    def there(self, node: str) -> tuple[int, int]:
        """How many volumes for a claim of 1 GiB, and how many of them are taken."""
        return self.found.limits(node).get(ONE_GI, 0), self.found.held(node).get(ONE_GI, 0)


@pytest.fixture
def world() -> World:
    return World()


def test_nodes_have_the_volumes_that_lie_there_and_claims_ask_for_one_each(world: World) -> None:
    for name, host in (("a", "n"), ("b", "n"), ("c", "m")):
        assert world.disk(name, host) == {host}
    assert world.there("n") == (0, 0)
    assert world.claim("one") == {"n", "m"}
    assert world.claim("two") == set()
    assert (world.there("n"), world.there("m"), world.there("gone")) == ((2, 0), (1, 0), (0, 0))
    assert (world.asked("one"), world.asked("one", "two")) == ({ONE_GI: 1}, {ONE_GI: 2})
    assert world.asked("one", "two", beside=("two",)) == {ONE_GI: 1}  # what two share nobody counts


def test_what_is_given_is_held_and_asked_for_no_more(world: World) -> None:
    world.claim("one")
    world.disk("a", "n")
    assert world.disk("a", "n", claimRef={"namespace": "ns", "name": "one"}) == {"n"}
    assert (world.there("n"), world.asked("one")) == ((1, 1), {})
    world.disk("b", "n", phase="Released")
    assert world.there("n") == (2, 2)


def test_only_volumes_that_fit_count(world: World) -> None:
    world.claim("one")
    world.claim("large", "3Gi")
    world.disk("a", "n", size="2Gi")
    world.disk("b", "n", volumeMode="Block")
    assert world.there("n") == (1, 0)
    assert world.asked("one", "large") == {ONE_GI: 1, ONE_GI.replace(str(2**30), str(3 * 2**30)): 1}


def test_where_volumes_lie_on_several_nodes_or_are_made_nothing_is_counted(world: World) -> None:
    world.claim("one")
    world.disk("a", "n")
    assert world.disk("wide", "n", "m") == set()
    assert world.asked("one") == {}
    world.disk("wide", "n", "m", claimRef={"namespace": "ns", "name": "other"})
    assert world.asked("one") == {ONE_GI: 1}
    made = World("example.com/disk")
    made.claim("one")
    made.disk("a", "n")
    assert made.asked("one") == {}


def test_a_node_that_comes_after_its_volumes_has_them(world: World) -> None:
    world.claim("one")
    assert world.disk("a", "late") == set()
    world.node("late")
    assert world.there("late") == (1, 0)
