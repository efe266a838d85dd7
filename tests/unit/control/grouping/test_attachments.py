"""How many volumes nodes can attach."""

import random
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from heddle.api.core import NODE_NAME_FIELD
from heddle.api.pod import Pod
from heddle.api.volumes import CSINode, PersistentVolume, PersistentVolumeClaim, StorageClass, VolumeAttachment
from heddle.control.grouping import matching
from heddle.control.grouping.attachments import RESOURCE, UNLIMITED, Attachments

DISKS, FILES = "disks.example.com", "files.example.com"


class World:
    """Claims `a`, `b` … are bound to volumes of their own of driver DISKS, `made…` are of a class of it and bound to
    none, `tree` is bound to a volume of Amazon's as Kubernetes knew them itself."""

    def __init__(self) -> None:
        self.claims: dict[str, PersistentVolumeClaim] = {}
        self.volumes: dict[str, PersistentVolume] = {}
        self.classes = {"disks": msgspec.convert({"metadata": {"name": "disks"}, "provisioner": DISKS}, StorageClass)}
        self.found = Attachments(self.claims, self.volumes, self.classes)
        for name in "abcd":
            self.volume(name, csi={"driver": DISKS, "volumeHandle": f"vol-{name}"})
        self.volume("tree", awsElasticBlockStore={"volumeID": "vol-1"})
        for name in ("made", "made-2"):
            self.claim(name, storageClassName="disks")

    def claim(self, name: str, **spec: Any) -> None:
        body = {"metadata": {"name": name, "namespace": "ns"}, "spec": spec}
        self.claims[f"ns/{name}"] = msgspec.convert(body, PersistentVolumeClaim)
        self.found.claim_changed(f"ns/{name}")

    def volume(self, name: str, **spec: Any) -> None:
        self.volumes[name] = msgspec.convert({"metadata": {"name": name}, "spec": spec}, PersistentVolume)
        self.found.volume_changed(name)
        self.claim(name, volumeName=name)

    def limits(self, node: str, **limits: int | None) -> None:
        drivers = [
            {"name": f"{name}.example.com", "allocatable": {} if limit is None else {"count": limit}}
            for name, limit in limits.items()
        ]
        body = {"metadata": {"name": node}, "spec": {"drivers": drivers}}
        self.found.node_changed(node, msgspec.convert(body, CSINode))

    def pod(self, name: str, *claims: str, node: str = "", phase: str = "Pending") -> Pod:
        volumes = [{"name": each, "persistentVolumeClaim": {"claimName": each}} for each in claims]
        spec = {"volumes": volumes, "nodeName": node}
        body = {"metadata": {"name": name, "namespace": "ns"}, "spec": spec, "status": {"phase": phase}}
        return msgspec.convert(body, Pod)

    def there(self, name: str, *claims: str, node: str = "", phase: str = "Pending") -> Pod:
        pod = self.pod(name, *claims, node=node, phase=phase)
        self.found.pod_changed(pod)
        return pod

    def attached(self, name: str, volume: str, node: str) -> None:
        spec = {"attacher": DISKS, "nodeName": node, "source": {"persistentVolumeName": volume}}
        made = msgspec.convert({"metadata": {"name": name}, "spec": spec}, VolumeAttachment)
        self.found.attachment_changed(name, made)

    def asked(self, *claims: str) -> int:
        return self.found.asked(self.pod("new", *claims)).get(RESOURCE + DISKS, 0)

    def held(self, node: str) -> int:
        return self.found.held(node).get(RESOURCE + DISKS, 0)

    def closed(self, *claims: str, beside: Sequence[Pod] = ()) -> list[str]:
        """Nodes of n, m and other that do not reach what a pod shares."""
        pod = self.pod("new", *claims)
        self.found.expect([pod, *beside])
        reach = self.found.reach(pod, beside)
        labels = {node: {NODE_NAME_FIELD: node, **self.found.labels(node)} for node in ("m", "n", "other")}
        return [node for node in labels if not all(matching.meets(labels[node], terms) for terms in reach)]

    def full(self, *claims: str) -> list[str]:
        return list(self.found.full(self.pod("new", *claims), lambda node: True))


@pytest.fixture
def world() -> World:
    return World()


def test_a_node_without_drivers_attaches_any_number() -> None:
    served = b'{"metadata": {"name": "n"}, "spec": {"drivers": null}}'  # as the API server says it
    assert msgspec.json.decode(served, type=CSINode).limits == {}


def test_without_limits_nothing_is_counted(world: World) -> None:
    world.limits("n", disks=None)
    world.there("one", "a", node="n")
    assert (world.found.drivers(), world.asked("b"), world.found.limits("n")) == ([], 0, {})
    assert not world.closed("a", "b")


def test_nodes_have_as_many_as_they_can_attach_and_pods_ask_for_those_that_only_they_use(world: World) -> None:
    world.limits("n", disks=3, files=1)
    assert world.found.limits("n") == {RESOURCE + DISKS: 3, RESOURCE + FILES: 1}
    assert world.found.limits("other") == {RESOURCE + DISKS: UNLIMITED, RESOURCE + FILES: UNLIMITED}
    assert (world.asked("a"), world.asked("a", "b", "made"), world.asked("a", "a", "none")) == (1, 3, 1)
    world.there("one", "a", node="n")
    assert (world.asked("a", "b"), world.asked("b")) == (1, 1)


def test_what_several_use_is_held_once_on_each_node_where_it_is(world: World) -> None:
    world.limits("n", disks=3)
    world.limits("m", disks=3)
    world.there("one", "a", "b", node="n")
    assert (world.held("n"), world.held("m")) == (0, 0)
    two = world.there("two", "a", node="n")
    assert (world.held("n"), world.held("m")) == (1, 0)
    assert world.found.asked(two) == {}
    world.there("two", "a", node="m")
    assert (world.held("n"), world.held("m")) == (1, 1)
    world.found.pod_changed(two, gone=True)
    assert (world.held("n"), world.held("m")) == (0, 0)
    world.there("three", "a", node="m", phase="Succeeded")
    assert world.held("n") == 0


def test_two_claims_to_one_volume_are_one(world: World) -> None:
    world.limits("n", disks=1)
    world.volume("again", csi={"driver": DISKS, "volumeHandle": "vol-a"})
    world.there("one", "a", node="n")
    assert (world.asked("again"), world.closed("again"), world.closed("b")) == (0, [], [])
    assert world.full("b") == ["node n can attach no more volumes of driver disks.example.com (limit 1)"]


def test_an_attachment_counts_until_it_goes_but_not_beside_its_pod(world: World) -> None:
    world.limits("n", disks=2)
    world.attached("x", "a", "n")
    assert world.held("n") == 1
    pod = world.there("one", "a", node="n")
    assert world.held("n") == 0
    world.found.pod_changed(pod, gone=True)
    assert world.held("n") == 1
    world.found.attachment_changed("x", None)
    assert world.held("n") == 0


def test_an_attachment_counts_once_its_volume_is_known(world: World) -> None:
    world.limits("n", disks=2)
    world.attached("x", "late", "n")
    assert world.held("n") == 0
    world.volume("late", csi={"driver": DISKS, "volumeHandle": "vol-late"})
    assert world.held("n") == 1


def test_who_shares_a_volume_stays_away_from_nodes_that_cannot_attach_it(world: World) -> None:
    world.limits("n", disks=1)
    world.limits("m", disks=1)
    world.there("one", "a", node="n")
    world.there("two", "b", node="m")
    assert (world.closed("a"), world.closed("b")) == (["m"], ["n"])
    assert world.closed("c") == []  # a plan counts it
    assert world.closed("a", "c") == ["m", "n"]
    world.limits("n", disks=2)
    assert world.closed("a", "c") == ["m"]
    world.limits("n", disks=20)
    world.limits("m", disks=20)
    assert (world.closed("a", "b", "c"), world.found.labels("n")) == ([], {})


def test_pods_that_are_to_come_together_share(world: World) -> None:
    world.limits("n", disks=2)
    pods = [world.pod(name, "a", "made") for name in ("p", "q")] + [world.pod("r", "b")]
    assert [world.found.asked(pod, pods) for pod in pods] == [{}, {}, {RESOURCE + DISKS: 1}]
    world.there("one", "c", node="n")
    assert world.closed("a", "made", beside=pods) == ["n"]
    assert world.closed("a", "made") == []


def test_what_is_bound_asks_for_the_same_as_before(world: World) -> None:
    world.limits("n", disks=2)
    world.there("one", "made", node="n")
    assert world.asked("made-2") == 1
    world.volumes["v"] = msgspec.convert(
        {"metadata": {"name": "v"}, "spec": {"csi": {"driver": DISKS, "volumeHandle": "vol-v"}}}, PersistentVolume
    )
    world.found.volume_changed("v")
    world.claim("made", volumeName="v")
    world.attached("x", "v", "n")
    assert world.held("n") == 0


def test_volumes_that_were_kubernetes_own_are_those_of_their_driver(world: World) -> None:
    world.found.node_changed(
        "n",
        msgspec.convert(
            {
                "metadata": {"name": "n"},
                "spec": {"drivers": [{"name": "ebs.csi.aws.com", "allocatable": {"count": 1}}]},
            },
            CSINode,
        ),
    )
    assert world.found.asked(world.pod("new", "tree")) == {RESOURCE + "ebs.csi.aws.com": 1}


def test_it_is_told_whom_a_change_concerns(world: World) -> None:
    world.limits("n", disks=1)
    assert world.found.news() == (set(), {"n"}, True)
    one = world.there("one", "a", node="n")
    assert world.found.news() == (set(), set(), False)
    world.there("waits", "a", "b")  # the other shares it by that
    assert world.found.news() == ({"ns/a"}, {"n"}, False)
    world.limits("n", disks=5)  # its label says so to who shares
    assert world.found.news() == (set(), {"n"}, False)
    three = world.there("three", "a", node="m")  # where it is attached by now
    assert world.found.news() == ({"ns/a", "ns/b"}, set(), False)
    world.there("four", "a", node="m")
    assert world.found.news() == (set(), set(), False)
    world.found.pod_changed(one, gone=True)
    assert world.found.news() == ({"ns/a", "ns/b"}, {"n"}, False)
    for pod in (three, world.pod("four")):
        world.found.pod_changed(pod, gone=True)
    assert world.found.news() == ({"ns/a", "ns/b"}, set(), False)
    assert world.asked("b") == 0
    world.found.node_changed("n", None)
    assert world.found.news()[2]


def test_a_pod_that_asks_for_more_than_is_left_is_told(world: World) -> None:
    world.limits("n", disks=3)
    world.there("one", "a", "b", node="n")
    assert world.full("c", "d") == [
        "node n can attach 1 more volume of driver disks.example.com (limit 3), and it asks for 2"
    ]


@pytest.mark.parametrize("seed", range(30))
def test_what_is_counted_step_by_step_is_what_there_is(seed: int) -> None:
    pick, world = random.Random(seed), World()
    pods: dict[str, Pod] = {}
    limits: dict[str, int | None] = {}
    attached: dict[str, tuple[str, str]] = {}
    claims = ["a", "b", "c", "d", "made", "made-2", "late"]
    for step in range(120):
        match pick.randrange(6):
            case 0:
                node = pick.choice("mn")
                limits[node] = pick.choice([None, 1, 2, 5, 30])
                world.limits(node, disks=limits[node])
            case 1 if pods:
                name = pick.choice([*pods])
                world.found.pod_changed(pods.pop(name), gone=True)
            case 2:
                name = f"x{pick.randrange(4)}"
                attached[name] = (pick.choice("abcd"), pick.choice("mn"))
                world.attached(name, *attached[name])
            case 3 if attached:
                name = pick.choice([*attached])
                del attached[name]
                world.found.attachment_changed(name, None)
            case 4 if step % 7 == 0:
                world.volume("late", csi={"driver": DISKS, "volumeHandle": f"vol-{pick.choice('ae')}"})
            case _:
                name = f"p{pick.randrange(6)}"
                mine = pick.sample(claims, pick.choice([1, 1, 2]))
                node = pick.choice(["", "m", "n"])
                if name in pods:  # its claims stay
                    mine = [volume.persistent_volume_claim.claim_name for volume in pods[name].spec.volumes]  # type: ignore[union-attr]
                pods[name] = world.there(name, *mine, node=node)
    fresh = World()
    for name, volume in world.volumes.items():
        fresh.volumes[name] = volume
    for key, one in world.claims.items():
        fresh.claims[key] = one
    for node, limit in limits.items():
        fresh.limits(node, disks=limit)
    for name, where in attached.items():
        fresh.attached(name, *where)
    for pod in pods.values():
        fresh.found.pod_changed(pod)
    for found in (world.found, fresh.found):
        found.expect([world.pod("one", "a"), world.pod("two", "a")])  # nodes are labelled once anybody shares
    for node in "mn":
        for what in ("limits", "held", "labels"):
            assert getattr(world.found, what)(node) == getattr(fresh.found, what)(node), (node, what)
        assert world.found.left(node, RESOURCE + DISKS) == fresh.found.left(node, RESOURCE + DISKS)
    for pod in pods.values():
        assert world.found.asked(pod) == fresh.found.asked(pod)
        assert world.found.reach(pod) == fresh.found.reach(pod)
        used = {node: world.found.fresh(pod, node) for node in "mn"}
        assert used == {node: fresh.found.fresh(pod, node) for node in "mn"}
