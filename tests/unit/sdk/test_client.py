"""A client that is closed while its other threads are still asking; what its apply says on a cluster."""

import copy
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import heddle
from heddle.api.errors import BadRequest, Invalid, NotFound, Unavailable
from heddle.store.patch import merge

QUEUE = {"apiVersion": "heddle.dev/v1alpha1", "kind": "Queue", "metadata": {"name": "q"}, "spec": {}}


class Endless:
    """A store with one log, which never ends."""

    async def stream(self, path: str, query: Any) -> AsyncIterator[bytes]:
        yield b"tick\n"

    async def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> heddle.Client:
    def connect(kubeconfig: Path | None, context: str | None) -> Endless:
        return Endless()

    monkeypatch.setattr("heddle.sdk.client.connect", connect)
    return heddle.Client()


def test_a_closed_client_says_so_and_may_be_closed_again(client: heddle.Client) -> None:
    client.close()
    client.close()
    with pytest.raises(Unavailable, match="this client is closed"):
        list(client.logs("pod"))
    with pytest.raises(Unavailable, match="this client is closed"):
        client.get("pod", "x")


@pytest.mark.parametrize("_turn", range(20))
def test_what_another_thread_asks_while_it_is_closed_is_refused_and_not_forgotten(
    client: heddle.Client, _turn: int
) -> None:
    ends: list[str] = []
    started = threading.Event()

    def ask() -> None:
        try:
            while True:
                list(client.logs("pod"))
                started.set()
        except Unavailable as error:
            ends.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert started.wait(10)
    client.close()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert ends == ["this client is closed"] * 3


class KubeApiServer:
    """As kube-apiserver with one Queue: a dry run leaves its resourceVersion, and unknown fields fall away quietly."""

    def __init__(self) -> None:
        meta = {"name": "q", "uid": "u", "resourceVersion": "7", "generation": 1}
        self.queue: dict[str, Any] = {**QUEUE, "metadata": meta, "status": {"pending": 3}}

    async def get(self, r: Any, name: str, namespace: str = "") -> bytes:
        if name != "q":
            raise NotFound(name)
        return msgspec.json.encode(self.queue)

    async def create(self, r: Any, obj: dict[str, Any], namespace: str, **how: Any) -> bytes:
        raise Invalid("spec: Invalid value: null: some validation rules were not checked")

    async def patch(self, r: Any, name: str, patch: dict[str, Any], **how: Any) -> bytes:
        if how.pop("strict", False) and "wieght" in patch["spec"]:
            raise Invalid(f'The request is invalid: patch: {patch}: strict decoding error: unknown field "spec.wieght"')
        changed = merge(copy.deepcopy(self.queue), patch)
        if not how["dry_run"]:
            self.queue = changed
            changed["metadata"]["resourceVersion"] = "8"
        return msgspec.json.encode(changed)

    async def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def on_cluster(monkeypatch: pytest.MonkeyPatch) -> heddle.Client:
    monkeypatch.setattr("heddle.sdk.client.connect", lambda kubeconfig, context: KubeApiServer())
    return heddle.Client()


def test_a_dry_run_of_apply_says_what_the_real_one_would_say(on_cluster: heddle.Client) -> None:
    wider = {**QUEUE, "spec": {"quota": {"nvidia.com/gpu": 16}}}
    assert on_cluster.apply(wider, dry_run=True)[1] == "configured"
    assert on_cluster.apply(wider)[1] == "configured"
    assert on_cluster.apply(wider, dry_run=True)[1] == "unchanged"
    assert on_cluster.apply(wider)[1] == "unchanged"


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_field_that_a_cluster_does_not_know_is_refused_with_the_one_that_was_meant(
    on_cluster: heddle.Client, dry_run: bool
) -> None:
    with pytest.raises(Invalid) as refused:
        on_cluster.apply({**QUEUE, "spec": {"wieght": 3}}, dry_run=dry_run)
    assert str(refused.value) == "Queue.heddle.dev 'q' is invalid: spec.wieght: unknown field; did you mean weight?"


def test_what_a_cluster_refuses_is_told_with_every_fault_and_its_remedy(on_cluster: heddle.Client) -> None:
    spec = {"quota": {"nvidia.com/gpu": 1.5}, "weight": -1}
    with pytest.raises(Invalid) as refused:
        on_cluster.apply({**QUEUE, "metadata": {"name": "new"}, "spec": spec})
    assert {cause.field for cause in refused.value.causes} == {"spec.quota[nvidia.com/gpu]", "spec.weight"}
    with pytest.raises(Invalid, match="some validation rules"):  # of which heddle knows nothing
        on_cluster.apply({**QUEUE, "metadata": {"name": "new"}})


@pytest.mark.parametrize("asked", [{"gpus": 0.0001}, {"gpus": 0.3333}, {"gpus": float("inf")}, {"cpus": 0.0004}])
def test_an_amount_that_no_quantity_says_is_refused_and_not_rounded_away(
    client: heddle.Client, asked: dict[str, float]
) -> None:
    with pytest.raises(BadRequest, match=r"a number with three decimals at most, such as 0\.25$"):
        client.run(["true"], **asked)  # type: ignore[arg-type]
