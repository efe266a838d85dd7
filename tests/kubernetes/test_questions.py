"""Answers of a cluster's controller: tokens, rights and the proxy are the real API server's."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from clusters import BINDINGS, ROLES, Cluster, Questions, address

import heddle
from heddle.api.errors import BadRequest, Forbidden
from heddle.api.registry import PODS, TRAININGJOBS, Resource
from heddle.sdk.asking import PROXY

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(120)]

SERVICES = Resource("", "v1", "Service", "services", True)
ENDPOINTS = Resource("", "v1", "Endpoints", "endpoints", True)
OTHERS = "others"


READER = [{"apiGroups": ["heddle.dev"], "resources": ["workloads"], "verbs": ["get"]}]
WRITER = [{"apiGroups": ["heddle.dev"], "resources": ["trainingjobs"], "verbs": ["create"]}]


@pytest.fixture
async def cluster(plane: Any, bed: Any, tmp_path: Path) -> AsyncIterator[Cluster]:
    """Eight GPUs, which the gang `theirs` of another namespace holds, and the gang `mine`, which waits for one."""
    found = Cluster(plane, tmp_path)
    try:
        await found.prepare()
        await found.nodes(bed.gpu_nodes(1))
        await found.queue("default", 8, limit={"nvidia.com/gpu": 8})
        own, found.namespace = found.namespace, f"{found.namespace}-{OTHERS}"
        await found.prepare()
        await found.gang("theirs", 2, gpus=4)
        found.start(host=address())
        await found.until_bound(2)
        found.namespace = own
        await found.gang("mine", 1)

        async def told() -> bool:
            return bool(await found.told("mine-0"))

        await found.until(told)
        yield found
    finally:
        for name in ("theirs-0", "theirs-1"):
            await found.store.delete(PODS, name, f"{own}-{OTHERS}", grace_period=0)
        await found.close()


@pytest.fixture
def questions(cluster: Cluster) -> Questions:
    return Questions.of(cluster)


async def test_who_asks_learns_what_they_may_and_no_other_names(cluster: Cluster, questions: Questions) -> None:
    space = cluster.namespace
    query = {"name": "mine", "namespace": space}
    reader = await questions.user("reader", READER)
    status, found = await questions("explain", reader, query=query)
    assert (status, found["workload"], found["admitted"]) == (200, f"{space}/mine", False)
    told = json.dumps(found)
    assert "held by a workload of another namespace (8 GPUs)" in told
    assert "theirs" not in told

    admin = cluster.plane.token
    status, found = await questions("explain", admin, query=query)
    assert f"held by {space}-{OTHERS}/theirs (8 GPUs)" in json.dumps(found)

    status, found = await questions("explain", reader, query={"name": "theirs", "namespace": f"{space}-{OTHERS}"})
    assert (status, found["reason"]) == (403, "Forbidden")
    missing = await questions("explain", reader, query={"name": "none", "namespace": f"{space}-{OTHERS}"})
    assert missing[1]["message"] == found["message"].replace("theirs", "none")  # tells nobody what is there

    for token in ("", "guessed"):
        status, found = await questions("explain", token, query=query)
        assert (status, found["reason"]) == (401, "Unauthorized")


async def test_a_process_that_stands_by_answers_the_same(cluster: Cluster, questions: Questions) -> None:
    cluster.start(host=address())

    async def stands_by() -> bool:
        return cluster.logs().count("standing by as") == 2

    await cluster.until(stands_by)
    assert cluster.logs().count("leading as") == 1
    port = re.findall(r"answers at port (\d+)", cluster.logs())[1]
    standby = Questions(cluster, f"https://{address()}:{port}")
    query = {"name": "mine-0", "namespace": cluster.namespace}  # its pod
    status, found = await standby("explain", cluster.plane.token, query=query)
    assert (status, found["workload"]) == (200, f"{cluster.namespace}/mine")
    assert found["reasons"] == (await questions("explain", cluster.plane.token, query=query))[1]["reasons"]


async def test_previews_need_the_right_to_create_and_snapshots_that_to_see_all(
    cluster: Cluster, questions: Questions
) -> None:
    space = cluster.namespace
    job = {
        "apiVersion": "heddle.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": "try", "namespace": space},
        "spec": {"command": ["true"], "queue": "default", "resourcesPerNode": {"nvidia.com/gpu": 1}},
    }
    writer, reader = await questions.user("writer", WRITER), await questions.user("reader", READER)
    status, found = await questions("preview", writer, object=job)
    assert (status, found["answer"]["admitted"]) == (200, False)
    assert "theirs" not in json.dumps(found)
    assert (await questions("preview", reader, object=job))[0] == 403
    elsewhere = {**job, "metadata": {"name": "try", "namespace": f"{space}-{OTHERS}"}}
    assert (await questions("preview", writer, object=elsewhere))[0] == 403
    wide = {"kind": "Queue", "metadata": {"name": "default"}, "spec": {"quota": {"nvidia.com/gpu": 8}}}
    assert (await questions("preview", writer, object=wide))[0] == 403

    assert (await questions("snapshot", reader))[0] == 403
    status, found = await questions("snapshot", cluster.plane.token)
    assert (status, found["kind"]) == (200, "heddle-snapshot")


async def test_the_client_asks_through_the_api_servers_proxy(
    cluster: Cluster, questions: Questions, tmp_path: Path
) -> None:
    if address() == "127.0.0.1":
        pytest.skip("this machine has no address but loopback, which the API server's proxy does not go to")
    await _behind_the_service(cluster, questions.url)
    with await asyncio.to_thread(heddle.Client, kubeconfig=cluster.plane.kubeconfig, namespace=cluster.namespace) as c:
        found = await asyncio.to_thread(c.explain, "mine")
        assert (found["workload"], found["admitted"]) == (f"{cluster.namespace}/mine", False)
        assert (await asyncio.to_thread(c.snapshot))["kind"] == "heddle-snapshot"
        preview = await asyncio.to_thread(
            c.preview, await asyncio.to_thread(c.run, ["true"], image="none", gpus=1, dry_run=True)
        )
        assert preview["answer"]["admitted"] is False
        with pytest.raises(BadRequest, match=r"--mig 3g.40g: no GPU .* did you mean nvidia.com/mig-3g.40gb"):
            await asyncio.to_thread(c.run, ["true"], image="none", mig="3g.40g")

    config = yaml.safe_load(Path(cluster.plane.kubeconfig).read_text())
    config["users"][0]["user"] = {"token": await questions.user("reader", READER)}
    (tmp_path / "reader").write_text(yaml.safe_dump(config))
    with await asyncio.to_thread(heddle.Client, kubeconfig=tmp_path / "reader", namespace=cluster.namespace) as c:
        with pytest.raises(Forbidden, match="Role heddle-asker"):
            await asyncio.to_thread(c.explain, "mine")
        await _let_ask(cluster)

        async def answered() -> bool:
            try:
                return (await asyncio.to_thread(c.explain, "mine"))["admitted"] is False
            except Forbidden:  # the API server's authorizer hears of the Role a moment later
                return False

        await cluster.until(answered, 10)


async def test_a_job_says_why_its_pods_are_refused(cluster: Cluster) -> None:
    job = {"metadata": {"name": "bare"}, "spec": {"command": ["true"], "queue": "default"}}
    await cluster.store.create(TRAININGJOBS, job, cluster.namespace)

    async def told() -> bool:
        status = json.loads(await cluster.store.get(TRAININGJOBS, "bare", cluster.namespace)).get("status", {})
        return "spec.containers[0].image: Required value" in status.get("message", "")

    await cluster.until(told, 15)


async def _behind_the_service(cluster: Cluster, url: str) -> None:
    """The Service of an installation, with a pod behind it that has the controller's address."""
    host, port = url.removeprefix("https://").split(":")
    own = "heddle-system"
    service = {"metadata": {"name": "heddle"}, "spec": {"ports": [{"name": "answers", "port": 443}]}}
    await cluster.ensure(SERVICES, service, own)
    spec = {"nodeName": "elsewhere", "containers": [{"name": "main", "image": "none"}]}
    await cluster.ensure(PODS, {"metadata": {"name": "here"}, "spec": spec}, own)
    status = {"status": {"phase": "Running", "podIP": host, "podIPs": [{"ip": host}]}}
    await cluster.store.patch(PODS, "here", status, namespace=own, subresource="status")
    target = {"kind": "Pod", "name": "here", "namespace": own}
    subset = {"addresses": [{"ip": host, "targetRef": target}], "ports": [{"name": "answers", "port": int(port)}]}
    await cluster.ensure(ENDPOINTS, {"metadata": {"name": "heddle"}, "subsets": [subset]}, own)
    assert "/heddle-system/services/https:heddle:answers/" in PROXY


async def _let_ask(cluster: Cluster) -> None:
    """The Role that an installation gives to everybody."""
    from heddle.deploy.rights import ASKER

    rules = [right.rule for right in ASKER]
    await cluster.store.create(ROLES, {"metadata": {"name": "heddle-asker"}, "rules": rules}, "heddle-system")
    role = {"apiGroup": ROLES.group, "kind": "Role", "name": "heddle-asker"}
    who = {"apiGroup": ROLES.group, "kind": "Group", "name": "system:authenticated"}
    binding = {"metadata": {"name": "heddle-asker"}, "roleRef": role, "subjects": [who]}
    await cluster.store.create(BINDINGS, binding, "heddle-system")
