"""The dialect over a store, without a socket."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from heddle.api.admission import admit
from heddle.server.app import MAX_BODY, Server
from heddle.server.auth import ADMINS, Tokens, User
from heddle.store.sqlite import SQLiteStore

Call = Callable[..., Awaitable[tuple[int, Any]]]
MAPS = "/api/v1/namespaces/default/configmaps"
QUEUES = "/apis/heddle.dev/v1alpha1/queues"
JOBS = "/apis/heddle.dev/v1alpha1/namespaces/default/trainingjobs"


@pytest.fixture
async def call(tmp_path: Path) -> AsyncIterator[Call]:
    """Send one request to the ASGI application; answers with status code and decoded body."""
    store = SQLiteStore.open(tmp_path / "heddle.db", admit)
    tokens = Tokens({"root": User("admin", (ADMINS,)), "user": User("ann", ("ml",))})
    server = Server(store, tokens)

    async def send(
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str = "root",
        query: str = "",
        media: str = "application/json",
    ) -> tuple[int, Any]:
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        headers = [(b"authorization", f"Bearer {token}".encode()), (b"content-type", media.encode())]
        scope = {
            "type": "http", "method": method, "path": path, "raw_path": path.encode(), "headers": headers,
            "query_string": query.encode(), "http_version": "1.1", "scheme": "https", "root_path": "",
        }  # fmt: skip
        sent: list[dict[str, Any]] = []
        asked = iter([{"type": "http.request", "body": raw, "more_body": False}])

        async def receive() -> dict[str, Any]:
            return next(asked, {"type": "http.disconnect"})

        async def answer(message: Any) -> None:
            sent.append(message)

        await server.app(scope, receive, answer)
        content = b"".join(m.get("body", b"") for m in sent)
        try:
            return sent[0]["status"], json.loads(content)
        except ValueError:
            return sent[0]["status"], content.decode()

    yield send
    await store.close()


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def queue(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "heddle.dev/v1alpha1", "kind": "Queue", "metadata": {"name": name}, "spec": spec}


async def test_objects_come_back_as_they_went(call: Call) -> None:
    assert (await call("POST", MAPS, config_map("a", x="1")))[0] == 201
    code, found = await call("GET", f"{MAPS}/a")
    assert (code, found["data"]) == (200, {"x": "1"})
    code, listed = await call("GET", MAPS)
    assert (listed["kind"], [o["metadata"]["name"] for o in listed["items"]]) == ("ConfigMapList", ["a"])
    assert (await call("DELETE", f"{MAPS}/a"))[0] == 200
    assert (await call("GET", f"{MAPS}/a"))[1]["reason"] == "NotFound"


async def test_a_dry_run_changes_nothing(call: Call) -> None:
    assert (await call("POST", MAPS, config_map("a"), query="dryRun=All"))[0] == 201
    assert (await call("GET", f"{MAPS}/a"))[0] == 404
    assert (await call("POST", MAPS, config_map("a"), query="dryRun=Some"))[0] == 400


@pytest.mark.parametrize(
    ("method", "path", "body", "code", "reason"),
    [
        ("POST", MAPS, config_map("twice"), 409, "AlreadyExists"),
        ("POST", MAPS, b"{", 400, "BadRequest"),
        ("POST", MAPS, ["list"], 400, "BadRequest"),
        ("POST", QUEUES, queue("q", quta={}), 422, "Invalid"),
        ("POST", QUEUES, queue("Q"), 422, "Invalid"),
        ("PUT", f"{MAPS}/twice", config_map("other"), 400, "BadRequest"),
        ("GET", "/api/v1/unknowns", None, 404, "NotFound"),
        ("GET", "/nowhere", None, 404, "NotFound"),
        ("PUT", MAPS, config_map("x"), 405, "MethodNotAllowed"),
        ("POST", MAPS, b" " * (MAX_BODY + 1), 413, "RequestEntityTooLarge"),
    ],
)
async def test_what_is_wrong_is_said_with_its_reason(
    call: Call, method: str, path: str, body: Any, code: int, reason: str
) -> None:
    await call("POST", MAPS, config_map("twice"))
    status, answer = await call(method, path, body)
    assert (status, answer["reason"], answer["kind"]) == (code, reason, "Status")


async def test_patches_by_media_type_and_server_side_apply_is_refused(call: Call) -> None:
    await call("POST", MAPS, config_map("a", x="1"))
    merge, apply = "application/merge-patch+json", "application/apply-patch+yaml"
    assert (await call("PATCH", f"{MAPS}/a", {"data": {"y": "2"}}, media=merge))[1]["data"] == {"x": "1", "y": "2"}
    operations = [{"op": "remove", "path": "/data/x"}]
    patched = await call("PATCH", f"{MAPS}/a", operations, media="application/json-patch+json")
    assert patched[1]["data"] == {"y": "2"}
    code, answer = await call("PATCH", f"{MAPS}/a", {}, media=apply)
    assert (code, answer["reason"]) == (415, "UnsupportedMediaType")
    assert "client-side apply" in answer["message"]


async def test_nothing_but_health_and_version_is_told_without_a_token(call: Call) -> None:
    for path in ("/api", "/apis", "/openapi/v3", "/metrics", MAPS):
        assert (await call("GET", path, token="wrong"))[0] == 401
    for path in ("/healthz", "/readyz", "/version"):
        assert (await call("GET", path, token="wrong"))[0] == 200


async def test_only_administrators_change_cluster_scoped_objects(call: Call) -> None:
    code, answer = await call("POST", QUEUES, queue("q"), token="user")
    assert (code, answer["reason"]) == (403, "Forbidden")
    assert (await call("GET", QUEUES, token="user"))[0] == 200


async def test_who_submitted_a_job_is_the_servers_to_say(call: Call) -> None:
    forged = {"heddle.dev/submitted-by": "root"}
    job = {
        "apiVersion": "heddle.dev/v1alpha1", "kind": "TrainingJob", "spec": {"command": ["true"]},
        "metadata": {"name": "j", "annotations": forged},
    }  # fmt: skip
    _, made = await call("POST", JOBS, job, token="user")
    assert made["metadata"]["annotations"]["heddle.dev/submitted-by"] == "ann"
    patch = {"metadata": {"annotations": forged}}
    _, changed = await call("PATCH", f"{JOBS}/j", patch, token="user", media="application/merge-patch+json")
    assert changed["metadata"]["annotations"]["heddle.dev/submitted-by"] == "ann"


async def test_discovery_and_openapi_name_every_kind(call: Call) -> None:
    _, core = await call("GET", "/api/v1")
    assert {"pods", "pods/log", "pods/binding", "nodes", "secrets"} <= {r["name"] for r in core["resources"]}
    _, groups = await call("GET", "/apis")
    assert {g["name"] for g in groups["groups"]} == {"heddle.dev", "coordination.k8s.io"}
    _, index = await call("GET", "/openapi/v3")
    for entry in index["paths"].values():
        code, document = await call("GET", entry["serverRelativeURL"])
        assert code == 200
        assert document["components"]["schemas"]


async def test_metrics_count_requests(call: Call) -> None:
    await call("GET", MAPS)
    _, text = await call("GET", "/metrics")
    assert 'apiserver_request_total{code="200",resource="configmaps",verb="GET"} 1.0' in text
