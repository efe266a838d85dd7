"""Node lifecycle: a node whose lease is not renewed is not Ready, and after a while its pods count as lost.

As Kubernetes does it: the node's agent renews a Lease in namespace kube-node-lease; after `grace` seconds without a
renewal Ready becomes Unknown, so that nothing new is placed there; after `eviction` more its pods are deleted, so that
their controllers make new ones elsewhere. Renewals are judged by when this controller saw them change, never by the
clock of the node.
"""

import asyncio
import contextlib
import logging
import time
from typing import Any

import msgspec

from heddle.api.clock import to_text
from heddle.api.core import Lease, Node, NodeCondition
from heddle.api.errors import NotFound
from heddle.api.pod import Pod
from heddle.api.registry import LEASES, NODES, PODS
from heddle.control.events import EventRecorder
from heddle.store.client import Client
from heddle.store.informer import Informer, Informers

LEASE_NAMESPACE = "kube-node-lease"
_log = logging.getLogger(__name__)


class NodeController:
    """Marks lost nodes and gives up their pods."""

    def __init__(self, informers: Informers, *, grace: float = 40.0, eviction: float = 60.0) -> None:
        """Watch over the nodes of a store; `grace` and `eviction` are seconds."""
        self._client = Client(informers.store)
        self._events = EventRecorder(self._client, "heddle-nodes")
        self._grace, self._eviction = grace, eviction
        self._nodes: Informer[Node] = informers.of(NODES)
        self._leases: Informer[Lease] = informers.of(LEASES)
        self._pods: Informer[Pod] = informers.of(PODS)
        self._seen: dict[str, tuple[str | None, float]] = {}

    async def run(self) -> None:
        """Watch until cancelled; the informers are run by their owner."""
        informers: tuple[Informer[Any], ...] = (self._nodes, self._leases, self._pods)
        for informer in informers:
            await informer.synced()
        while True:
            await self._check(time.monotonic())
            await asyncio.sleep(min(self._grace, self._eviction) / 8)

    async def _check(self, now: float) -> None:
        for name, node in list(self._nodes.objects.items()):
            lease = self._leases.objects.get(f"{LEASE_NAMESPACE}/{name}")
            renewed = lease.spec.renew_time if lease else None
            known = self._seen.get(name)
            if known is None or known[0] != renewed:
                self._seen[name] = known = (renewed, now)
            silent = now - known[1]
            if silent > self._grace:
                await self._mark_lost(node, silent)
            if silent > self._grace + self._eviction:
                await self._give_up_pods(name)
        for name in set(self._seen) - set(self._nodes.objects):
            del self._seen[name]
        await self._orphans()

    async def _mark_lost(self, node: Node, silent: float) -> None:
        ready = next((c for c in node.status.conditions if c.type == "Ready"), None)
        if ready is not None and ready.status == "Unknown":
            return
        lost = NodeCondition(
            type="Ready",
            status="Unknown",
            reason="NodeStatusUnknown",
            message=f"the node's agent has not been heard of for {silent:.0f} s",
            last_transition_time=to_text(time.time()),
        )
        others = [c for c in node.status.conditions if c.type != "Ready"]
        patch = {"status": {"conditions": msgspec.to_builtins([*others, lost])}}
        with contextlib.suppress(NotFound):
            await self._client.patch(NODES, node.metadata.name, patch, subresource="status")
        await self._events.record(node, "NodeNotReady", lost.message, warning=True)

    async def _give_up_pods(self, node: str) -> None:
        for pod in list(self._pods.objects.values()):
            if pod.spec.node_name == node and not pod.finished:
                await self._events.record(pod, "NodeLost", f"node {node} is lost", warning=True)
                with contextlib.suppress(NotFound):
                    await self._client.delete(PODS, pod.metadata.name, pod.metadata.namespace, grace_period=0)

    async def _orphans(self) -> None:
        """Pods of a node that was removed: nobody is left to end them."""
        for pod in list(self._pods.objects.values()):
            node = pod.spec.node_name
            if node and node not in self._nodes.objects and not pod.finished:
                try:
                    await self._client.get(NODES, node)
                except NotFound:
                    with contextlib.suppress(NotFound):
                        await self._client.delete(PODS, pod.metadata.name, pod.metadata.namespace, grace_period=0)
