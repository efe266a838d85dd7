"""What is written in a cluster, and when: against a store that only notes what it is asked."""

import asyncio
from typing import Any

import pytest

from heddle.api.meta import Condition, ObjectMeta
from heddle.api.pod import Pod, PodSpec
from heddle.api.workload import DERIVED_LABEL, PodSet, ReservedPlace, Workload, WorkloadReason, WorkloadSpec
from heddle.control.scheduling import writes
from heddle.control.scheduling.afterwards import Afterwards
from heddle.control.scheduling.writes import ClusterWrites
from heddle.store.client import Client

CONDITION = Condition(type="DisruptionTarget", status="True", reason="Reclaimed", message="b takes its share back")


class Notes:
    """Notes each write as (verb, name, body)."""

    def __init__(self) -> None:
        self.written: list[tuple[str, str, Any]] = []

    async def create(self, resource: Any, body: Any, namespace: str = "", **_: Any) -> bytes:
        self.written.append(("create", body["metadata"]["name"], body))
        return b'{"metadata": {"name": "x"}}'

    async def patch(self, resource: Any, name: str, patch: Any, **_: Any) -> bytes:
        self.written.append(("patch", name, patch))
        return b'{"metadata": {"name": "x"}}'

    async def delete(self, resource: Any, name: str, namespace: str = "", **_: Any) -> bytes:
        self.written.append(("delete", name, None))
        return b"{}"

    def verbs(self) -> list[str]:
        return [verb for verb, _, _ in self.written]


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def cluster(notes: Notes, after: Afterwards) -> ClusterWrites:
    return ClusterWrites(Client(notes), after, ["space"])  # type: ignore[arg-type]


def pod(name: str, grace: int | None = None) -> Pod:
    return Pod(
        metadata=ObjectMeta(name=name, namespace="space", uid=f"uid-{name}"),
        spec=PodSpec(termination_grace_period_seconds=grace),
    )


def waiting(name: str, *, promised: bool) -> Workload:
    found = Workload(
        metadata=ObjectMeta(name=name, namespace="space", labels={DERIVED_LABEL: "true"}),
        spec=WorkloadSpec(queue="q", pod_sets=[PodSet(name="pods", count=1)]),
    )
    found.status.reasons = [WorkloadReason(code="NoRoom", message="nothing is free")]
    if promised:
        found.status.reservation = [ReservedPlace(pod_set="pods", pod=name, node="n1")]
    return found


async def test_why_a_pod_waits_is_told_at_once(cluster: ClusterWrites, after: Afterwards, notes: Notes) -> None:
    await cluster.status(waiting("p", promised=False), [pod("p")])
    await asyncio.wait_for(after.flushed(), 1)
    assert notes.verbs() == ["patch"]


async def test_of_room_that_others_leave_is_told_only_if_it_takes_long(
    cluster: ClusterWrites, after: Afterwards, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writes, "_PROMISED", 0.2)
    job = waiting("p", promised=False)
    await cluster.promise(job, waiting("p", promised=True).status.reservation, [])
    await cluster.status(job, [pod("p")])
    await cluster.bind("space", "p", "uid-p", "n1", [])
    await asyncio.wait_for(after.flushed(), 1)
    assert notes.verbs() == ["create"], "it was bound before: nothing else is of interest"

    await cluster.promise(waiting("r", promised=False), waiting("r", promised=True).status.reservation, [])
    await cluster.status(waiting("r", promised=True), [pod("r")])
    await asyncio.sleep(0.1)
    assert notes.verbs() == ["create"]
    await asyncio.wait_for(after.flushed(), 1)
    said = [patch["status"] for verb, _, patch in notes.written if verb == "patch"]
    assert {"nominatedNodeName": "n1"} in said
    assert any("nothing is free" in each["conditions"][0]["message"] for each in said if "conditions" in each)


async def test_a_pod_that_ends_at_once_gets_no_condition(
    cluster: ClusterWrites, after: Afterwards, notes: Notes
) -> None:
    await cluster.evict(pod("at-once", grace=0), CONDITION)
    await asyncio.wait_for(after.flushed(), 1)
    assert notes.verbs() == ["delete"]


async def test_a_pod_with_grace_says_why_it_ends_unless_it_is_gone_before(
    cluster: ClusterWrites, after: Afterwards, notes: Notes
) -> None:
    with cluster.urgent(1):
        await cluster.evict(pod("stays"), CONDITION)
        await cluster.evict(pod("goes"), CONDITION)
        cluster.gone(pod("goes"))
    await asyncio.wait_for(after.flushed(), 1)
    assert [(verb, name) for verb, name, _ in notes.written] == [
        ("delete", "stays"), ("delete", "goes"), ("patch", "stays"),
    ]  # fmt: skip
