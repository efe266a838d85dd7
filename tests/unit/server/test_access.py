"""What users other than administrators may do."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from heddle.api.core import ConfigMap, Namespace, Secret
from heddle.api.errors import Forbidden
from heddle.api.meta import ObjectMeta, OwnerReference
from heddle.api.registry import (
    CONFIGMAPS,
    LEASES,
    NAMESPACES,
    NODES,
    PODS,
    QUEUES,
    SECRETS,
    TRAININGJOBS,
    WORKLOADS,
    Resource,
)
from heddle.api.trainingjob import TrainingJob, TrainingJobSpec
from heddle.api.workload import USER_ANNOTATION
from heddle.server.access import authorise
from heddle.server.auth import ADMINS, User
from heddle.server.paths import Target
from heddle.store.client import Client
from heddle.store.sqlite import SQLiteStore

ANN = User("ann", ("ml",))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    store = SQLiteStore.open(tmp_path / "heddle.db")
    client = Client(store)
    made = await client.create(CONFIGMAPS, ConfigMap(metadata=ObjectMeta(name="owner", namespace="default")))
    owner = OwnerReference(api_version="v1", kind="ConfigMap", name="owner", uid=made.metadata.uid, controller=True)
    await client.create(NAMESPACES, Namespace(metadata=ObjectMeta(name="heddle-system")))
    for name, owners in (("free", []), ("owned", [owner])):
        meta = ObjectMeta(name=name, namespace="default", owner_references=owners)
        await client.create(CONFIGMAPS, ConfigMap(metadata=meta))
    await client.create(SECRETS, Secret(metadata=ObjectMeta(name="s", namespace="default")))
    for name in ("ann", "bob"):
        meta = ObjectMeta(name=name, namespace="default", annotations={USER_ANNOTATION: name})
        await client.create(TRAININGJOBS, TrainingJob(metadata=meta, spec=TrainingJobSpec(command=["true"])))
    yield store
    await store.close()


async def allowed(store: SQLiteStore, method: str, target: Target, user: User = ANN) -> bool:
    try:
        await authorise(store, user, method, target)
    except Forbidden:
        return False
    return True


@pytest.mark.parametrize(
    ("method", "resource", "name", "sub", "may"),
    [
        ("GET", PODS, "p", "", True),
        ("GET", WORKLOADS, "", "", True),
        ("GET", SECRETS, "s", "", False),
        ("POST", SECRETS, "", "", True),
        ("POST", TRAININGJOBS, "", "", True),
        ("PATCH", TRAININGJOBS, "ann", "", True),
        ("DELETE", TRAININGJOBS, "ann", "", True),
        ("DELETE", TRAININGJOBS, "bob", "", False),
        ("DELETE", TRAININGJOBS, "", "", False),
        ("PATCH", TRAININGJOBS, "ann", "status", False),
        ("PATCH", CONFIGMAPS, "free", "", True),
        ("PATCH", CONFIGMAPS, "owned", "", False),
        ("POST", PODS, "", "", False),
        ("POST", PODS, "p", "binding", False),
        ("PATCH", PODS, "p", "", False),
        ("PATCH", WORKLOADS, "w", "", False),
        ("PATCH", WORKLOADS, "w", "status", False),
        ("PATCH", LEASES, "vm", "", False),
    ],
)
async def test_users_write_only_what_no_controller_relies_on(
    store: SQLiteStore, method: str, resource: Resource, name: str, sub: str, may: bool
) -> None:
    assert await allowed(store, method, Target(resource, "default", name, sub)) is may
    assert await allowed(store, method, Target(resource, "default", name, sub), User("root", (ADMINS,)))


async def test_the_systems_namespaces_and_cluster_scoped_objects_are_the_administrators(store: SQLiteStore) -> None:
    assert not await allowed(store, "DELETE", Target(CONFIGMAPS, "heddle-system", "heddle-usage"))
    for resource in (NODES, QUEUES, NAMESPACES):
        assert not await allowed(store, "POST", Target(resource))
        assert await allowed(store, "GET", Target(resource))
