"""What every Store does: the same tests against the real kube-apiserver (the oracle) and SQLite."""

import asyncio
import contextlib
import json
import ssl
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from heddle.api import registry
from heddle.api.errors import (
    AlreadyExists,
    BadRequest,
    Conflict,
    Expired,
    Forbidden,
    Invalid,
    NotFound,
    TooManyRequests,
    UnsupportedMediaType,
)
from heddle.api.registry import CONFIGMAPS, NAMESPACES, PODS, Resource
from heddle.store.kubernetes import KubernetesStore
from heddle.store.port import INITIAL_EVENTS_END, PatchType, Store, Watched
from heddle.store.sqlite import SQLiteStore

WIDGETS = Resource("conformance.heddle.dev", "v1", "Widget", "widgets", True, subresources=("status",))
NAKED = Resource("conformance.heddle.dev", "v1", "Naked", "nakeds", True, subresources=())
CRDS = Resource("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", False)
OPEN = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def definition(r: Resource) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"spec": OPEN, "status": OPEN}}
    version: dict[str, Any] = {
        "name": r.version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
    }
    if r.subresources:
        version["subresources"] = {"status": {}}
    names = {"plural": r.plural, "singular": r.kind.lower(), "kind": r.kind, "listKind": r.list_kind}
    spec = {"group": r.group, "scope": "Namespaced", "names": names, "versions": [version]}
    return {"metadata": {"name": f"{r.plural}.{r.group}"}, "spec": spec}


@pytest.fixture(params=[pytest.param("kubernetes", marks=pytest.mark.kubernetes), "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Any) -> AsyncIterator[Store]:
    opened: Store
    if request.param == "kubernetes":
        plane = request.getfixturevalue("controlplane")
        context = ssl.create_default_context(cafile=str(plane.ca))
        opened = KubernetesStore(plane.url, token=plane.token, ssl_context=context)
        await define(opened)
    else:
        opened = SQLiteStore.open(tmp_path / "heddle.db")
    yield opened
    await opened.close()


async def define(store: Store) -> None:
    for r in (WIDGETS, NAKED):
        with contextlib.suppress(AlreadyExists):
            await store.create(CRDS, definition(r))

        async def served(r: Resource = r) -> bool:
            with contextlib.suppress(NotFound, TooManyRequests):  # it comes up
                await store.list(r, "default")
                return True
            return False

        await eventually(served)


@pytest.fixture
async def ns(store: Store) -> str:
    name = f"t-{uuid.uuid4().hex[:12]}"
    await store.create(NAMESPACES, {"metadata": {"name": name}})
    return name


async def eventually(holds: Callable[[], Awaitable[bool]], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not await holds():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def absent(store: Store, r: Resource, name: str, ns: str = "") -> bool:
    try:
        await store.get(r, name, ns)
    except NotFound:
        return True
    return False


def cm(name: str, labels: dict[str, str] | None = None, **data: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": labels or {}}, "data": data}


def widget(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": spec}


def pod(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"containers": [{"name": "main", "image": "x"}], **spec}}


def owned(obj: dict[str, Any], owner: dict[str, Any], *, block: bool = False) -> dict[str, Any]:
    m = owner["metadata"]
    reference = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": m["name"], "uid": m["uid"]}
    held = obj["metadata"].setdefault("ownerReferences", [])
    held.append({**reference, "blockOwnerDeletion": True} if block else reference)
    return obj


async def new(store: Store, r: Resource, obj: dict[str, Any], ns: str = "") -> dict[str, Any]:
    return json.loads(await store.create(r, obj, ns))


async def read(store: Store, r: Resource, name: str, ns: str = "") -> dict[str, Any]:
    return json.loads(await store.get(r, name, ns))


def version(obj: dict[str, Any]) -> str:
    return obj["metadata"]["resourceVersion"]


def names(blobs: Any) -> list[str]:
    return [json.loads(b)["metadata"]["name"] for b in blobs]


async def take(events: AsyncIterator[Watched], count: int, seconds: float = 20) -> list[tuple[str, str]]:
    """The next `count` events as (type, name)."""
    found = []
    async with asyncio.timeout(seconds):
        while len(found) < count:
            event = await anext(events)
            found.append((event.type, json.loads(event.object)["metadata"].get("name", "")))
    return found


class TestCreating:
    async def test_the_server_fills_in_identity(self, store: Store, ns: str) -> None:
        made = await new(store, CONFIGMAPS, cm("a", x="1"), ns)
        m = made["metadata"]
        assert (made["apiVersion"], made["kind"], m["name"], m["namespace"]) == ("v1", "ConfigMap", "a", ns)
        assert m["uid"]
        assert m["creationTimestamp"].endswith("Z")
        assert int(m["resourceVersion"]) > 0
        assert made["data"] == {"x": "1"}

    async def test_what_is_created_can_be_read(self, store: Store, ns: str) -> None:
        made = await new(store, WIDGETS, widget("a", size=3), ns)
        assert await read(store, WIDGETS, "a", ns) == made

    async def test_a_taken_name_is_refused(self, store: Store, ns: str) -> None:
        await new(store, CONFIGMAPS, cm("a"), ns)
        with pytest.raises(AlreadyExists):
            await store.create(CONFIGMAPS, cm("a"), ns)

    async def test_generate_name_appends_five_characters(self, store: Store, ns: str) -> None:
        one = await new(store, CONFIGMAPS, {"metadata": {"generateName": "run-"}}, ns)
        two = await new(store, CONFIGMAPS, {"metadata": {"generateName": "run-"}}, ns)
        for made in (one, two):
            name = made["metadata"]["name"]
            assert name.startswith("run-")
            assert len(name) == 9
            assert made["metadata"]["generateName"] == "run-"
        assert one["metadata"]["name"] != two["metadata"]["name"]

    @pytest.mark.parametrize("name", ["Upper", "under_score", "-dash", "", "a" * 254])
    async def test_a_bad_name_is_invalid(self, store: Store, ns: str, name: str) -> None:
        with pytest.raises(Invalid) as caught:
            await store.create(CONFIGMAPS, cm(name), ns)
        assert next(cause.field for cause in caught.value.causes) == "metadata.name"

    async def test_an_absent_namespace_is_not_found(self, store: Store) -> None:
        with pytest.raises(NotFound):
            await store.create(CONFIGMAPS, cm("a"), "no-such-namespace")

    async def test_another_namespace_in_the_object_is_refused(self, store: Store, ns: str) -> None:
        with pytest.raises(BadRequest):
            await store.create(CONFIGMAPS, {"metadata": {"name": "a", "namespace": "other"}}, ns)

    async def test_another_kind_is_refused(self, store: Store, ns: str) -> None:
        with pytest.raises(BadRequest):
            await store.create(CONFIGMAPS, {**cm("a"), "apiVersion": "v1", "kind": "Secret"}, ns)

    async def test_a_dry_run_stores_nothing(self, store: Store, ns: str) -> None:
        made = json.loads(await store.create(CONFIGMAPS, cm("a"), ns, dry_run=True))
        assert made["metadata"]["uid"]
        assert await absent(store, CONFIGMAPS, "a", ns)

    async def test_status_is_not_taken_on_creation(self, store: Store, ns: str) -> None:
        made = await new(store, WIDGETS, {**widget("a"), "status": {"phase": "Done"}}, ns)
        assert "status" not in made

    async def test_status_is_a_plain_field_without_the_subresource(self, store: Store, ns: str) -> None:
        made = await new(store, NAKED, {**widget("a"), "status": {"phase": "Done"}}, ns)
        assert made["status"] == {"phase": "Done"}

    async def test_a_pod_starts_pending(self, store: Store, ns: str) -> None:
        assert (await new(store, PODS, pod("a"), ns))["status"]["phase"] == "Pending"


class TestReplacing:
    async def test_a_stale_version_is_a_conflict(self, store: Store, ns: str) -> None:
        first = await new(store, CONFIGMAPS, cm("a", x="1"), ns)
        await store.replace(CONFIGMAPS, {**first, "data": {"x": "2"}})
        with pytest.raises(Conflict):
            await store.replace(CONFIGMAPS, {**first, "data": {"x": "3"}})
        assert (await read(store, CONFIGMAPS, "a", ns))["data"] == {"x": "2"}

    async def test_of_many_writers_one_wins(self, store: Store, ns: str) -> None:
        first = await new(store, CONFIGMAPS, cm("a", x="0"), ns)
        outcomes = await asyncio.gather(
            *(store.replace(CONFIGMAPS, {**first, "data": {"x": str(n)}}) for n in range(1, 9)), return_exceptions=True
        )
        assert sum(isinstance(o, bytes) for o in outcomes) == 1
        assert sum(isinstance(o, Conflict) for o in outcomes) == 7

    async def test_a_core_kind_without_version_is_replaced(self, store: Store, ns: str) -> None:
        await new(store, CONFIGMAPS, cm("a", x="1"), ns)
        obj = cm("a", x="2")
        obj["metadata"]["namespace"] = ns
        assert json.loads(await store.replace(CONFIGMAPS, obj))["data"] == {"x": "2"}

    async def test_a_custom_kind_without_version_is_invalid(self, store: Store, ns: str) -> None:
        await new(store, WIDGETS, widget("a"), ns)
        obj = widget("a", size=1)
        obj["metadata"]["namespace"] = ns
        with pytest.raises(Invalid):
            await store.replace(WIDGETS, obj)

    async def test_another_uid_is_a_conflict(self, store: Store, ns: str) -> None:
        made = await new(store, CONFIGMAPS, cm("a"), ns)
        made["metadata"]["uid"] = str(uuid.uuid4())
        with pytest.raises(Conflict):
            await store.replace(CONFIGMAPS, made)

    async def test_an_absent_object_is_not_found(self, store: Store, ns: str) -> None:
        obj = cm("a")
        obj["metadata"]["namespace"] = ns
        with pytest.raises(NotFound):
            await store.replace(CONFIGMAPS, obj)

    async def test_a_write_without_effect_keeps_the_version(self, store: Store, ns: str) -> None:
        made = await new(store, WIDGETS, widget("a", size=1), ns)
        same = json.loads(await store.replace(WIDGETS, made))
        assert version(same) == version(made)

    async def test_true_is_not_one(self, store: Store, ns: str) -> None:
        made = await new(store, WIDGETS, widget("a", size=1), ns)
        changed = json.loads(await store.replace(WIDGETS, {**made, "spec": {"size": True}}))
        assert changed["spec"] == {"size": True}
        assert changed["spec"]["size"] is True

    async def test_generation_counts_changes_of_the_spec_only(self, store: Store, ns: str) -> None:
        made = await new(store, WIDGETS, widget("a", size=1), ns)
        assert made["metadata"]["generation"] == 1
        made["metadata"]["labels"] = {"x": "y"}
        labelled = json.loads(await store.replace(WIDGETS, made))
        assert labelled["metadata"]["generation"] == 1
        changed = json.loads(await store.replace(WIDGETS, {**labelled, "spec": {"size": 2}}))
        assert changed["metadata"]["generation"] == 2
        reported = json.loads(await store.replace(WIDGETS, {**changed, "status": {"a": 1}}, subresource="status"))
        assert reported["metadata"]["generation"] == 2

    async def test_a_main_write_leaves_status(self, store: Store, ns: str) -> None:
        made = await new(store, WIDGETS, widget("a", size=1), ns)
        made = json.loads(await store.replace(WIDGETS, {**made, "status": {"a": 1}}, subresource="status"))
        made = json.loads(await store.replace(WIDGETS, {**made, "spec": {"size": 2}, "status": {"a": 9}}))
        assert (made["spec"], made["status"]) == ({"size": 2}, {"a": 1})

    async def test_a_status_write_leaves_spec_and_labels(self, store: Store, ns: str) -> None:
        made = await new(store, WIDGETS, widget("a", size=1), ns)
        change = {**made, "spec": {"size": 9}, "status": {"a": 1}}
        change["metadata"] = {**made["metadata"], "labels": {"x": "y"}}
        made = json.loads(await store.replace(WIDGETS, change, subresource="status"))
        assert (made["spec"], made["status"]) == ({"size": 1}, {"a": 1})
        assert "labels" not in made["metadata"]

    async def test_a_status_write_with_a_stale_version_is_a_conflict(self, store: Store, ns: str) -> None:
        made = await new(store, WIDGETS, widget("a", size=1), ns)
        await store.replace(WIDGETS, {**made, "status": {"a": 1}}, subresource="status")
        with pytest.raises(Conflict):
            await store.replace(WIDGETS, {**made, "status": {"a": 2}}, subresource="status")

    async def test_identity_cannot_be_rewritten(self, store: Store, ns: str) -> None:
        made = await new(store, WIDGETS, widget("a"), ns)
        change = {
            **made,
            "metadata": {**made["metadata"], "creationTimestamp": "2001-01-01T00:00:00Z", "generation": 9},
        }
        after = json.loads(await store.replace(WIDGETS, change))
        assert after["metadata"]["creationTimestamp"] == made["metadata"]["creationTimestamp"]
        assert after["metadata"]["generation"] == 1


class TestPatching:
    async def test_a_merge_patch_sets_and_removes(self, store: Store, ns: str) -> None:
        await new(store, WIDGETS, widget("a", keep=1, drop=2, deep={"x": 1, "y": 2}, list=[1, 2]), ns)
        patch = {"spec": {"drop": None, "deep": {"y": None, "z": 3}, "list": [3]}}
        made = json.loads(await store.patch(WIDGETS, "a", patch, namespace=ns))
        assert made["spec"] == {"keep": 1, "deep": {"x": 1, "z": 3}, "list": [3]}
        assert made["metadata"]["generation"] == 2

    async def test_a_json_patch_applies_in_order(self, store: Store, ns: str) -> None:
        await new(store, WIDGETS, widget("a", list=[1, 2, 3]), ns)
        operations = [
            {"op": "test", "path": "/spec/list/0", "value": 1},
            {"op": "remove", "path": "/spec/list/0"},
            {"op": "add", "path": "/spec/list/-", "value": 4},
            {"op": "add", "path": "/metadata/labels", "value": {"a~b": "c"}},
        ]
        operations[3]["value"] = {"a": "c"}
        made = json.loads(await store.patch(WIDGETS, "a", operations, namespace=ns, type=PatchType.JSON))
        assert made["spec"]["list"] == [2, 3, 4]
        assert made["metadata"]["labels"] == {"a": "c"}

    async def test_a_failed_test_changes_nothing(self, store: Store, ns: str) -> None:
        made = await new(store, WIDGETS, widget("a", size=1), ns)
        operations = [
            {"op": "replace", "path": "/spec/size", "value": 2},
            {"op": "test", "path": "/spec/size", "value": 7},
        ]
        with pytest.raises(Invalid):
            await store.patch(WIDGETS, "a", operations, namespace=ns, type=PatchType.JSON)
        assert await read(store, WIDGETS, "a", ns) == made

    async def test_a_patch_without_effect_keeps_the_version(self, store: Store, ns: str) -> None:
        made = await new(store, WIDGETS, widget("a", size=1), ns)
        same = json.loads(await store.patch(WIDGETS, "a", {"spec": {"size": 1}}, namespace=ns))
        assert version(same) == version(made)

    async def test_a_patch_may_demand_a_version(self, store: Store, ns: str) -> None:
        made = await new(store, WIDGETS, widget("a", size=1), ns)
        patch = {"metadata": {"resourceVersion": version(made)}, "spec": {"size": 2}}
        await store.patch(WIDGETS, "a", patch, namespace=ns)
        with pytest.raises(Conflict):
            await store.patch(WIDGETS, "a", {**patch, "spec": {"size": 3}}, namespace=ns)

    async def test_a_status_patch_leaves_spec(self, store: Store, ns: str) -> None:
        await new(store, WIDGETS, widget("a", size=1), ns)
        patch = {"spec": {"size": 9}, "status": {"a": 1}}
        made = json.loads(await store.patch(WIDGETS, "a", patch, namespace=ns, subresource="status"))
        assert (made["spec"], made["status"]) == ({"size": 1}, {"a": 1})

    async def test_a_patch_of_nothing_is_not_found(self, store: Store, ns: str) -> None:
        with pytest.raises(NotFound):
            await store.patch(WIDGETS, "a", {"spec": {}}, namespace=ns)

    async def test_a_custom_kind_takes_no_strategic_patch(self, store: Store, ns: str) -> None:
        await new(store, WIDGETS, widget("a"), ns)
        with pytest.raises(UnsupportedMediaType):
            await store.patch(WIDGETS, "a", {"spec": {"x": 1}}, namespace=ns, type=PatchType.STRATEGIC)

    async def test_a_strategic_patch_merges_conditions_by_type(self, store: Store, ns: str) -> None:
        await new(store, PODS, pod("a"), ns)
        for kind, status in (("Ready", "False"), ("PodScheduled", "True"), ("Ready", "True")):
            patch = {"status": {"conditions": [{"type": kind, "status": status}]}}
            await store.patch(PODS, "a", patch, namespace=ns, type=PatchType.STRATEGIC, subresource="status")
        held = (await read(store, PODS, "a", ns))["status"]["conditions"]
        assert sorted((c["type"], c["status"]) for c in held) == [("PodScheduled", "True"), ("Ready", "True")]

    async def test_a_strategic_patch_deletes_by_directive(self, store: Store, ns: str) -> None:
        await new(store, PODS, pod("a"), ns)
        conditions = [{"type": "A", "status": "True"}, {"type": "B", "status": "True"}]
        for items in (conditions, [{"type": "A", "$patch": "delete"}]):
            patch = {"status": {"conditions": items}}
            await store.patch(PODS, "a", patch, namespace=ns, type=PatchType.STRATEGIC, subresource="status")
        held = (await read(store, PODS, "a", ns))["status"]["conditions"]
        assert [c["type"] for c in held] == ["B"]

    async def test_a_dry_run_changes_nothing(self, store: Store, ns: str) -> None:
        made = await new(store, WIDGETS, widget("a", size=1), ns)
        shown = json.loads(await store.patch(WIDGETS, "a", {"spec": {"size": 2}}, namespace=ns, dry_run=True))
        assert shown["spec"] == {"size": 2}
        assert await read(store, WIDGETS, "a", ns) == made


class TestListing:
    async def test_a_list_is_ordered_and_stays_in_its_namespace(self, store: Store, ns: str) -> None:
        for name in ("c", "a", "b"):
            await new(store, WIDGETS, widget(name), ns)
        assert names((await store.list(WIDGETS, ns)).items) == ["a", "b", "c"]
        assert {"a", "b", "c"} <= set(names((await store.list(WIDGETS)).items))

    @pytest.mark.parametrize(
        ("selector", "expected"),
        [
            ("tier=x", ["a", "b"]),
            ("tier==x,app=1", ["a"]),
            ("tier!=x", ["c", "d"]),
            ("tier in (x, y)", ["a", "b", "c"]),
            ("tier notin (x)", ["c", "d"]),
            ("app", ["a"]),
            ("!tier", ["d"]),
        ],
    )
    async def test_label_selectors(self, store: Store, ns: str, selector: str, expected: list[str]) -> None:
        for name, labels in (("a", {"tier": "x", "app": "1"}), ("b", {"tier": "x"}), ("c", {"tier": "y"}), ("d", {})):
            await new(store, CONFIGMAPS, cm(name, labels), ns)
        assert names((await store.list(CONFIGMAPS, ns, label_selector=selector)).items) == expected

    async def test_field_selectors(self, store: Store, ns: str) -> None:
        await new(store, PODS, pod("a"), ns)
        await new(store, PODS, pod("b", nodeName="n1"), ns)

        async def found(selector: str) -> list[str]:
            return names((await store.list(PODS, ns, field_selector=selector)).items)

        assert await found("metadata.name=a") == ["a"]
        assert await found("spec.nodeName=n1") == ["b"]
        assert await found("spec.nodeName=") == ["a"]
        assert await found("spec.nodeName!=n1,status.phase=Pending") == ["a"]

    async def test_a_field_that_cannot_select_is_refused(self, store: Store, ns: str) -> None:
        with pytest.raises(BadRequest):
            await store.list(PODS, ns, field_selector="spec.hostname=a")

    async def test_pages_show_one_state(self, store: Store, ns: str) -> None:
        for n in range(5):
            await new(store, WIDGETS, widget(f"w{n}", size=1), ns)
        first = await store.list(WIDGETS, ns, limit=2)
        assert names(first.items) == ["w0", "w1"]
        assert first.remaining == 3
        await store.delete(WIDGETS, "w2", ns)
        await store.patch(WIDGETS, "w3", {"spec": {"size": 2}}, namespace=ns)
        await new(store, WIDGETS, widget("w25"), ns)
        second = await store.list(WIDGETS, ns, limit=2, continue_=first.continue_)
        third = await store.list(WIDGETS, ns, limit=2, continue_=second.continue_)
        assert names(second.items + third.items) == ["w2", "w3", "w4"]
        assert json.loads(second.items[1])["spec"] == {"size": 1}
        assert first.resource_version == second.resource_version == third.resource_version
        assert third.continue_ == ""

    async def test_pages_count_what_is_selected(self, store: Store, ns: str) -> None:
        for n in range(6):
            await new(store, CONFIGMAPS, cm(f"w{n}", {"odd": str(n % 2)}), ns)
        first = await store.list(CONFIGMAPS, ns, limit=2, label_selector="odd=1")
        assert names(first.items) == ["w1", "w3"]
        rest = await store.list(CONFIGMAPS, ns, limit=2, label_selector="odd=1", continue_=first.continue_)
        assert names(rest.items) == ["w5"]
        assert rest.continue_ == ""

    async def test_a_made_up_continue_token_is_refused(self, store: Store, ns: str) -> None:
        with pytest.raises((BadRequest, Expired)):
            await store.list(WIDGETS, ns, limit=2, continue_="nonsense")


class TestWatching:
    async def test_a_watch_resumes_after_a_version(self, store: Store, ns: str) -> None:
        await new(store, WIDGETS, widget("before"), ns)
        at = (await store.list(WIDGETS, ns)).resource_version
        await new(store, WIDGETS, widget("a", size=1), ns)
        await store.patch(WIDGETS, "a", {"spec": {"size": 2}}, namespace=ns)
        events = store.watch(WIDGETS, ns, resource_version=at)
        assert await take(events, 2) == [("ADDED", "a"), ("MODIFIED", "a")]
        await store.delete(WIDGETS, "a", ns)
        assert await take(events, 1) == [("DELETED", "a")]
        await events.aclose()

    async def test_the_version_of_an_event_resumes_after_it(self, store: Store, ns: str) -> None:
        at = (await store.list(WIDGETS, ns)).resource_version
        for name in ("a", "b", "c"):
            await new(store, WIDGETS, widget(name), ns)
        events = store.watch(WIDGETS, ns, resource_version=at)
        first = await anext(events)
        await events.aclose()
        assert version(json.loads(first.object)) == first.resource_version
        again = store.watch(WIDGETS, ns, resource_version=first.resource_version)
        assert await take(again, 2) == [("ADDED", "b"), ("ADDED", "c")]
        await again.aclose()

    async def test_a_deleted_event_carries_the_version_of_the_deletion(self, store: Store, ns: str) -> None:
        made = await new(store, WIDGETS, widget("a"), ns)
        await store.delete(WIDGETS, "a", ns)
        events = store.watch(WIDGETS, ns, resource_version=version(made))
        gone = await anext(events)
        assert gone.type == "DELETED"
        assert int(gone.resource_version) > int(version(made))
        await events.aclose()

    async def test_without_a_version_a_watch_begins_with_what_is_there(self, store: Store, ns: str) -> None:
        for name in ("a", "b"):
            await new(store, WIDGETS, widget(name), ns)
        events = store.watch(WIDGETS, ns)
        assert sorted(await take(events, 2)) == [("ADDED", "a"), ("ADDED", "b")]
        await new(store, WIDGETS, widget("c"), ns)
        assert await take(events, 1) == [("ADDED", "c")]
        await events.aclose()

    async def test_initial_events_end_with_an_annotated_bookmark(self, store: Store, ns: str) -> None:
        await new(store, WIDGETS, widget("a"), ns)
        events = store.watch(WIDGETS, ns, bookmarks=True, send_initial_events=True)
        assert await take(events, 1) == [("ADDED", "a")]
        mark = await anext(events)
        m = json.loads(mark.object)["metadata"]
        assert mark.type == "BOOKMARK"
        assert m["annotations"] == {INITIAL_EVENTS_END: "true"}
        assert m["resourceVersion"] == mark.resource_version
        await new(store, WIDGETS, widget("b"), ns)
        assert await take(events, 1) == [("ADDED", "b")]
        await events.aclose()

    async def test_a_selector_watch_sees_objects_come_and_go(self, store: Store, ns: str) -> None:
        at = (await store.list(CONFIGMAPS, ns)).resource_version
        await new(store, CONFIGMAPS, cm("a", {"in": "no"}), ns)
        for value in ("yes", "yes", "no", "yes"):
            patch = {"metadata": {"labels": {"in": value}}, "data": {"n": uuid.uuid4().hex}}
            await store.patch(CONFIGMAPS, "a", patch, namespace=ns)
        await store.delete(CONFIGMAPS, "a", ns)
        events = store.watch(CONFIGMAPS, ns, resource_version=at, label_selector="in=yes")
        seen = [kind for kind, _ in await take(events, 5)]
        assert seen == ["ADDED", "MODIFIED", "DELETED", "ADDED", "DELETED"]
        await events.aclose()

    async def test_a_field_selector_watch_sees_a_pod_leave_when_it_is_bound(self, store: Store, ns: str) -> None:
        at = (await store.list(PODS, ns)).resource_version
        await new(store, PODS, pod("a"), ns)
        await store.create(PODS, {"metadata": {"name": "a"}, "target": {"name": "n1"}}, ns, subresource="binding")
        unbound = store.watch(PODS, ns, resource_version=at, field_selector="spec.nodeName=")
        bound = store.watch(PODS, ns, resource_version=at, field_selector="spec.nodeName=n1")
        assert [k for k, _ in await take(unbound, 2)] == ["ADDED", "DELETED"]
        assert await take(bound, 1) == [("ADDED", "a")]
        await unbound.aclose()
        await bound.aclose()

    async def test_a_version_that_is_no_longer_kept_is_expired(self, store: Store, ns: str) -> None:
        await new(store, WIDGETS, widget("a"), ns)
        if isinstance(store, SQLiteStore):
            await store.compact()
        with pytest.raises(Expired):
            await anext(store.watch(WIDGETS, ns, resource_version="1"))

    async def test_a_watch_ends_at_its_timeout(self, store: Store, ns: str) -> None:
        async with asyncio.timeout(10):
            at = (await store.list(WIDGETS, ns)).resource_version
            assert [e async for e in store.watch(WIDGETS, ns, resource_version=at, timeout=1)] == []


class TestDeleting:
    async def test_a_deleted_object_is_gone(self, store: Store, ns: str) -> None:
        await new(store, CONFIGMAPS, cm("a"), ns)
        await store.delete(CONFIGMAPS, "a", ns)
        with pytest.raises(NotFound):
            await store.get(CONFIGMAPS, "a", ns)
        with pytest.raises(NotFound):
            await store.delete(CONFIGMAPS, "a", ns)

    async def test_preconditions_are_kept(self, store: Store, ns: str) -> None:
        made = await new(store, CONFIGMAPS, cm("a"), ns)
        with pytest.raises(Conflict):
            await store.delete(CONFIGMAPS, "a", ns, uid=str(uuid.uuid4()))
        changed = json.loads(await store.patch(CONFIGMAPS, "a", {"data": {"x": "1"}}, namespace=ns))
        with pytest.raises(Conflict):
            await store.delete(CONFIGMAPS, "a", ns, resource_version=version(made))
        await store.delete(CONFIGMAPS, "a", ns, uid=made["metadata"]["uid"], resource_version=version(changed))
        assert await absent(store, CONFIGMAPS, "a", ns)

    async def test_a_finalizer_holds_an_object(self, store: Store, ns: str) -> None:
        obj = widget("a")
        obj["metadata"]["finalizers"] = ["heddle.dev/hold"]
        await new(store, WIDGETS, obj, ns)
        marked = json.loads(await store.delete(WIDGETS, "a", ns))
        assert marked["metadata"]["deletionTimestamp"]
        assert marked["metadata"]["generation"] == 2
        held = await read(store, WIDGETS, "a", ns)
        assert held["metadata"]["deletionTimestamp"] == marked["metadata"]["deletionTimestamp"]
        with pytest.raises(Invalid):
            await store.patch(
                WIDGETS, "a", {"metadata": {"finalizers": ["heddle.dev/hold", "heddle.dev/more"]}}, namespace=ns
            )
        await store.patch(WIDGETS, "a", {"metadata": {"finalizers": None}}, namespace=ns)
        assert await absent(store, WIDGETS, "a", ns)

    async def test_deleting_twice_changes_nothing(self, store: Store, ns: str) -> None:
        obj = widget("a")
        obj["metadata"]["finalizers"] = ["heddle.dev/hold"]
        await new(store, WIDGETS, obj, ns)
        once = json.loads(await store.delete(WIDGETS, "a", ns))
        await store.delete(WIDGETS, "a", ns)
        assert version(await read(store, WIDGETS, "a", ns)) == version(once)
        await store.patch(WIDGETS, "a", {"metadata": {"finalizers": None}}, namespace=ns)

    async def test_an_unbound_pod_goes_at_once(self, store: Store, ns: str) -> None:
        await new(store, PODS, pod("a"), ns)
        await store.delete(PODS, "a", ns)
        assert await absent(store, PODS, "a", ns)

    async def test_a_bound_pod_stays_until_its_node_lets_go(self, store: Store, ns: str) -> None:
        await new(store, PODS, pod("a", nodeName="n1"), ns)
        marked = json.loads(await store.delete(PODS, "a", ns))
        assert marked["metadata"]["deletionGracePeriodSeconds"] == 30
        assert marked["metadata"]["deletionTimestamp"]
        shorter = json.loads(await store.delete(PODS, "a", ns, grace_period=5))
        assert shorter["metadata"]["deletionGracePeriodSeconds"] == 5
        await store.delete(PODS, "a", ns, grace_period=0)
        assert await absent(store, PODS, "a", ns)

    async def test_a_finished_pod_goes_at_once(self, store: Store, ns: str) -> None:
        await new(store, PODS, pod("a", nodeName="n1"), ns)
        await store.patch(PODS, "a", {"status": {"phase": "Succeeded"}}, namespace=ns, subresource="status")
        await store.delete(PODS, "a", ns)
        assert await absent(store, PODS, "a", ns)

    async def test_a_pod_is_bound_once(self, store: Store, ns: str) -> None:
        await new(store, PODS, pod("a"), ns)
        binding = {"metadata": {"name": "a"}, "target": {"name": "n1"}}
        await store.create(PODS, binding, ns, subresource="binding")
        assert (await read(store, PODS, "a", ns))["spec"]["nodeName"] == "n1"
        with pytest.raises(Conflict):
            await store.create(PODS, {**binding, "target": {"name": "n2"}}, ns, subresource="binding")

    async def test_a_namespace_takes_its_contents_along(self, store: Store, ns: str) -> None:
        await new(store, CONFIGMAPS, cm("a"), ns)
        held = widget("w")
        held["metadata"]["finalizers"] = ["heddle.dev/hold"]
        await new(store, WIDGETS, held, ns)
        await store.delete(NAMESPACES, ns)
        assert (await read(store, NAMESPACES, ns))["status"]["phase"] == "Terminating"
        with pytest.raises(Forbidden):
            await store.create(CONFIGMAPS, cm("b"), ns)
        await eventually(lambda: absent(store, CONFIGMAPS, "a", ns))

        async def marked() -> bool:
            return "deletionTimestamp" in (await read(store, WIDGETS, "w", ns))["metadata"]

        await eventually(marked)
        await store.patch(WIDGETS, "w", {"metadata": {"finalizers": None}}, namespace=ns)
        await eventually(lambda: absent(store, NAMESPACES, ns))


class TestCollectingGarbage:
    """Kubernetes collects later, SQLite at once: so each of these waits."""

    async def test_dependants_go_with_their_owner(self, store: Store, ns: str) -> None:
        owner = await new(store, CONFIGMAPS, cm("owner"), ns)
        child = await new(store, CONFIGMAPS, owned(cm("child"), owner), ns)
        await new(store, CONFIGMAPS, owned(cm("grandchild"), child), ns)
        await store.delete(CONFIGMAPS, "owner", ns)
        await eventually(lambda: absent(store, CONFIGMAPS, "child", ns))
        await eventually(lambda: absent(store, CONFIGMAPS, "grandchild", ns))

    async def test_a_dependant_of_two_outlives_one(self, store: Store, ns: str) -> None:
        one, two = await new(store, CONFIGMAPS, cm("one"), ns), await new(store, CONFIGMAPS, cm("two"), ns)
        await new(store, CONFIGMAPS, owned(owned(cm("child"), one), two), ns)
        await store.delete(CONFIGMAPS, "one", ns)

        async def only_two() -> bool:
            references = (await read(store, CONFIGMAPS, "child", ns))["metadata"]["ownerReferences"]
            return [r["name"] for r in references] == ["two"]

        await eventually(only_two)
        await store.delete(CONFIGMAPS, "two", ns)
        await eventually(lambda: absent(store, CONFIGMAPS, "child", ns))

    async def test_orphans_stay(self, store: Store, ns: str) -> None:
        owner = await new(store, CONFIGMAPS, cm("owner"), ns)
        await new(store, CONFIGMAPS, owned(cm("child"), owner), ns)
        await asyncio.sleep(1 if isinstance(store, KubernetesStore) else 0)  # its collector must have seen the child
        await store.delete(CONFIGMAPS, "owner", ns, propagation="Orphan")
        await eventually(lambda: absent(store, CONFIGMAPS, "owner", ns))
        assert "ownerReferences" not in (await read(store, CONFIGMAPS, "child", ns))["metadata"]

    async def test_in_the_foreground_the_owner_goes_last(self, store: Store, ns: str) -> None:
        owner = await new(store, CONFIGMAPS, cm("owner"), ns)
        child = owned(cm("child"), owner, block=True)
        child["metadata"]["finalizers"] = ["heddle.dev/hold"]
        await new(store, CONFIGMAPS, child, ns)
        await asyncio.sleep(1 if isinstance(store, KubernetesStore) else 0)
        await store.delete(CONFIGMAPS, "owner", ns, propagation="Foreground")
        held = await read(store, CONFIGMAPS, "owner", ns)
        assert held["metadata"]["deletionTimestamp"]
        assert "foregroundDeletion" in held["metadata"]["finalizers"]

        async def child_is_marked() -> bool:
            return "deletionTimestamp" in (await read(store, CONFIGMAPS, "child", ns))["metadata"]

        await eventually(child_is_marked)
        await store.patch(CONFIGMAPS, "child", {"metadata": {"finalizers": None}}, namespace=ns)
        await eventually(lambda: absent(store, CONFIGMAPS, "owner", ns))

    async def test_a_child_of_nobody_is_collected(self, store: Store, ns: str) -> None:
        owner = await new(store, CONFIGMAPS, cm("owner"), ns)
        await store.delete(CONFIGMAPS, "owner", ns)
        await new(store, CONFIGMAPS, owned(cm("late"), owner), ns)
        await eventually(lambda: absent(store, CONFIGMAPS, "late", ns))


def test_the_registry_speaks_of_no_kind_twice() -> None:
    assert len({(r.group, r.kind) for r in registry.ALL}) == len(registry.ALL)
