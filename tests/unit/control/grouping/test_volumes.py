"""Where pods can go for the sake of their volumes."""

from typing import Any

import msgspec
import pytest

from heddle.api.core import NODE_NAME_FIELD
from heddle.api.pod import NodeSelectorRequirement, NodeSelectorTerm, Pod
from heddle.api.volumes import (
    NO_PROVISIONER,
    SELECTED_NODE_ANNOTATION,
    CSIDriver,
    CSIStorageCapacity,
    PersistentVolume,
    PersistentVolumeClaim,
    StorageClass,
)
from heddle.control.grouping import matching
from heddle.control.grouping.volumes import Volumes

NODES = {
    name: {"zone": zone, "host": name, NODE_NAME_FIELD: name} for name, zone in (("n1", "a"), ("n2", "a"), ("n3", "b"))
}


def pod(*claims: str) -> Pod:
    volumes = [{"name": f"v-{claim}", "persistentVolumeClaim": {"claimName": claim}} for claim in claims]
    return msgspec.convert({"metadata": {"name": "p", "namespace": "ns"}, "spec": {"volumes": volumes}}, Pod)


def claim(
    name: str = "c", *, size: str = "10Gi", phase: str = "Pending", meta: dict[str, Any] | None = None, **spec: Any
) -> PersistentVolumeClaim:
    body = {"storageClassName": "disks", "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}
    metadata = {"name": name, "namespace": "ns", "uid": f"uid-{name}", **(meta or {})}
    found = {"metadata": metadata, "spec": body | spec, "status": {"phase": phase}}
    return msgspec.convert(found, PersistentVolumeClaim)


def volume(
    name: str, *, host: str = "", zone: str = "", size: str = "10Gi", phase: str = "Available", **spec: Any
) -> PersistentVolume:
    demands = [{"key": k, "operator": "In", "values": [v]} for k, v in (("host", host), ("zone", zone)) if v]
    body: dict[str, Any] = {
        "capacity": {"storage": size},
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "disks",
    }
    if demands:
        body["nodeAffinity"] = {"required": {"nodeSelectorTerms": [{"matchExpressions": demands}]}}
    found = {"metadata": {"name": name, "labels": {"tier": "fast"}}, "spec": body | spec, "status": {"phase": phase}}
    return msgspec.convert(found, PersistentVolume)


def storage_class(provisioner: str = NO_PROVISIONER, **more: Any) -> StorageClass:
    body = {"metadata": {"name": "disks"}, "provisioner": provisioner, "volumeBindingMode": "WaitForFirstConsumer"}
    return msgspec.convert(body | more, StorageClass)


def storage(
    *objects: PersistentVolumeClaim | PersistentVolume | CSIDriver | CSIStorageCapacity,
    kind: StorageClass | None = None,
) -> Volumes:
    def those(wanted: type[Any]) -> dict[str, Any]:
        return {each.key: each for each in objects if isinstance(each, wanted)}

    return Volumes(
        those(PersistentVolumeClaim), those(PersistentVolume), {"disks": kind or storage_class()}, those(CSIDriver),
        those(CSIStorageCapacity),
    )  # fmt: skip


def nodes(found: Volumes, *claims: str) -> str:
    """The nodes on which a pod with these claims may be, or why it waits."""
    demands, faults = found.of(pod(*claims or ("c",)))
    if faults:
        return "; ".join(faults)
    return " ".join(name for name, labels in NODES.items() if all(matching.meets(labels, terms) for terms in demands))


MADE = storage_class("example.com/disk")
IN_B = [{"matchLabelExpressions": [{"key": "zone", "values": ["b", "c"]}]}]
MADE_IN_B = storage_class("example.com/disk", allowedTopologies=IN_B)
CHOSEN = {"annotations": {SELECTED_NODE_ANNOTATION: "n2"}}
OWN, OTHERS = {"name": "c", "namespace": "ns"}, {"name": "x", "namespace": "ns"}


@pytest.mark.parametrize(
    ("found", "where"),
    [
        (storage(claim(), volume("v", host="n1"), volume("w", host="n3")), "n1 n3"),
        (storage(claim(), volume("v", zone="a"), volume("w", host="n3")), "n1 n2 n3"),
        (storage(claim(), volume("v", host="n1"), volume("w")), "n1 n2 n3"),
        (storage(claim(), volume("v", host="n1"), volume("w", host="n3", size="9Gi")), "n1"),
        (storage(claim(), volume("v", host="n1"), volume("w", host="n3", phase="Released")), "n1"),
        (storage(claim(), volume("v", host="n1"), volume("w", host="n3", volumeMode="Block")), "n1"),
        (storage(claim(), volume("v", host="n1"), volume("w", host="n3", accessModes=["ReadOnlyMany"])), "n1"),
        (storage(claim(), volume("v", host="n1"), volume("w", host="n3", storageClassName="other")), "n1"),
        (storage(claim(), volume("v", host="n1"), volume("w", host="n3", claimRef=OTHERS)), "n1"),
        (storage(claim(), volume("v", host="n1"), volume("w", host="n3", claimRef=OWN)), "n3"),
        (storage(claim(selector={"matchLabels": {"tier": "fast"}}), volume("v", host="n1")), "n1"),
        (storage(claim(), kind=MADE), "n1 n2 n3"),
        (storage(claim(), kind=MADE_IN_B), "n3"),
        (storage(claim(), volume("v", host="n1"), kind=MADE_IN_B), "n1 n3"),
        (storage(claim(meta=CHOSEN), kind=MADE), "n2"),
        (
            storage(claim(meta=CHOSEN, accessModes=["ReadWriteMany"]), kind=MADE),
            "n1 n2 n3",
        ),
        (storage(claim(phase="Bound", volumeName="v"), volume("v", zone="b", phase="Bound")), "n3"),
    ],
)  # fmt: skip
def test_a_pod_may_go_where_its_claim_can_have_a_volume(found: Volumes, where: str) -> None:
    assert nodes(found) == where


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (storage(), "claim c does not exist"),
        (storage(claim(), volume("v", size="1Gi")), "claim c fits no volume of class disks that is free"),
        (storage(claim(selector={"matchLabels": {"tier": "slow"}}), volume("v")), "claim c fits no volume"),
        (storage(claim(), kind=storage_class("example.com/disk", volumeBindingMode="Immediate")), "is not bound to a"),
        (storage(claim(storageClassName="")), "is not bound to a volume yet"),
        (storage(claim(storageClassName="gone")), "there is no StorageClass gone"),
        (storage(claim(phase="Lost")), "has lost its volume"),
        (storage(claim(meta={"deletionTimestamp": "2026-01-01T00:00:00Z"}), volume("v")), "is being deleted"),
        (storage(claim(phase="Bound", volumeName="v")), "is bound to a volume that does not exist: v"),
    ],
)
def test_why_a_pod_waits_for_its_claim_is_told(found: Volumes, why: str) -> None:
    assert nodes(found).startswith("spec.volumes[v-c]: claim c ")
    assert why in nodes(found)


def test_all_claims_of_a_pod_must_be_met_on_one_node() -> None:
    found = storage(
        claim("a"), claim("b", phase="Bound", volumeName="v"), volume("v", host="n1"), volume("w", zone="a")
    )
    assert nodes(found, "a", "b") == "n1"


def test_local_volumes_make_one_demand_however_many_there_are() -> None:
    found = storage(claim(), *(volume(f"v-{at}", host=f"n{at}") for at in range(50)))
    ((term,),) = found.of(pod("c"))[0]
    assert len(term.match_expressions[0].values) == 50


def test_room_that_a_driver_reports_is_kept_to() -> None:
    driver = msgspec.convert({"metadata": {"name": "example.com/disk"}, "spec": {"storageCapacity": True}}, CSIDriver)

    def room(name: str, zone: str, size: str, **more: str) -> CSIStorageCapacity:
        topology = {"matchLabels": {"zone": zone}}
        body = {"metadata": {"name": name, "namespace": "x"}, "storageClassName": "disks", "nodeTopology": topology}
        return msgspec.convert(body | {"capacity": size} | more, CSIStorageCapacity)

    assert nodes(storage(claim(), driver, room("a", "a", "5Gi"), room("b", "b", "10Gi"), kind=MADE)) == "n3"
    assert nodes(storage(claim(), driver, room("a", "a", "50Gi", maximumVolumeSize="9Gi"), kind=MADE)).startswith(
        "spec"
    )
    assert nodes(storage(claim(), room("a", "a", "5Gi"), kind=MADE)) == "n1 n2 n3"


def test_the_claim_of_an_ephemeral_volume_must_be_the_pods_own() -> None:
    mine = msgspec.convert(
        {
            "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
            "spec": {"volumes": [{"name": "scratch", "ephemeral": {"volumeClaimTemplate": {}}}]},
        },
        Pod,
    )
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}
    assert storage(claim("p-scratch", meta={"ownerReferences": [owner]}), kind=MADE).of(mine) == ((), ())
    assert "is not this pod's own" in storage(claim("p-scratch"), kind=MADE).of(mine)[1][0]


def test_a_node_that_the_provisioner_refused_is_not_tried_again_until_it_is_forgiven() -> None:
    before, after = claim(meta={"annotations": {SELECTED_NODE_ANNOTATION: "n1"}}), claim()
    found = storage(after, kind=MADE)
    assert found.claim_changed(before, after)
    assert nodes(found) == "n2 n3"
    found.forgive("ns/c")
    assert nodes(found) == "n1 n2 n3"


def test_a_volume_that_becomes_free_is_news_for_those_who_wait_for_its_class() -> None:
    found = storage(claim())
    assert "fits no volume" in nodes(found)
    assert found.volume_changed(None, volume("v", host="n2")) == {"ns/c"}
    assert nodes(found) == "n2"
    assert found.volume_changed(volume("v", host="n2"), None) == set()
    assert "fits no volume" in nodes(found)


def test_a_term_without_demands_is_met_by_no_node() -> None:
    assert not matching.meets(NODES["n1"], (NodeSelectorTerm(),))
    there = NodeSelectorTerm(match_expressions=[NodeSelectorRequirement(key="zone", operator="In", values=["a"])])
    assert matching.both((there,), (NodeSelectorTerm(),)) == ()
