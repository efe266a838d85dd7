"""The embedded node agent: registers this machine's nodes, keeps their leases, and runs the pods bound to them.

It stands where the kubelet stands on Kubernetes, and speaks to the store only.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from heddle.api.clock import to_seconds, to_text
from heddle.api.core import ConfigMap, Lease, LeaseSpec, Node, Secret
from heddle.api.errors import AlreadyExists, ApiError, Conflict, NotFound
from heddle.api.meta import Condition, ObjectMeta, set_condition
from heddle.api.pod import Pod, PodStatus
from heddle.api.registry import CONFIGMAPS, LEASES, NODES, PODS, SECRETS
from heddle.control.events import EventRecorder
from heddle.control.nodes import LEASE_NAMESPACE
from heddle.runtime.runtime import LocalRuntime
from heddle.store.client import Client
from heddle.store.informer import Informer, Informers

_log = logging.getLogger(__name__)

_DRAIN_SLACK = 10.0  # seconds beyond the longest grace
_RENEW = 10.0  # seconds between renewals of a node's lease, as the kubelet's


class Agent:
    """Nodes and pods of this machine."""

    def __init__(self, informers: Informers, data: Path, nodes: Sequence[Node]) -> None:
        """Run the pods of `nodes`, which are registered on start; `data` is the runtime's directory."""
        self._client = Client(informers.store)
        self._events = EventRecorder(self._client, "heddle-agent")
        self._nodes = {node.metadata.name: node for node in nodes}
        self._pods: Informer[Pod] = informers.of(PODS)
        self._config_maps: Informer[ConfigMap] = informers.of(CONFIGMAPS)
        self._pods.on_change(self._pod_changed)
        self._config_maps.on_change(lambda _type, old, new: self._references_changed(old or new))
        self.runtime = LocalRuntime(data, references=self, sink=self)
        self._changed: asyncio.Queue[tuple[str, Pod]] = asyncio.Queue()
        self._deadlines: dict[str, asyncio.TimerHandle] = {}
        self._overdue: set[str] = set()

    async def run(self) -> None:
        """Register, adopt, then run pods until cancelled."""
        for node in self._nodes.values():
            await self._register(node)
        async with asyncio.TaskGroup() as group:
            await self._config_maps.synced()
            await self._pods.synced()
            await self._forget_other_nodes()
            for pod in await self.runtime.adopt():
                live = self._pods.objects.get(pod.key)
                known = live is not None and live.metadata.uid == pod.metadata.uid
                if not known or pod.spec.node_name not in self._nodes:
                    group.create_task(self.runtime.remove(pod.metadata.uid))
            group.create_task(self._renew())
            while True:
                type_, pod = await self._changed.get()
                if type_ == "DELETED":
                    group.create_task(self._forget(pod))
                else:
                    self._watch_deadline(pod)
                    await self.runtime.sync(pod)

    async def stop(self, *, pods: bool) -> None:
        """Let go of the pods (they run on under their shims), or stop them first.

        A pod that is stopped because heddle goes down is deleted, as when a node shuts down: its job makes a new one at
        the next start, and nothing counts as a failure.
        """
        if pods:
            await self._drain()
        await self.runtime.close()

    async def _drain(self) -> None:
        mine = [p for p in self._pods.objects.values() if p.spec.node_name in self._nodes and not p.finished]
        grace = max((p.spec.termination_grace_period_seconds or 0 for p in mine), default=0)
        left = {p.metadata.uid for p in mine}
        gone = asyncio.Event()

        def seen(type_: str, old: Pod | None, new: Pod | None) -> None:
            pod = new or old
            if pod is not None and (type_ == "DELETED" or pod.finished):
                left.discard(pod.metadata.uid)
                if not left:
                    gone.set()

        if not left:
            return
        self._pods.on_change(seen)
        message = "heddle goes down on this machine"
        await asyncio.gather(*(self._shut_down(pod, message) for pod in mine))
        try:
            async with asyncio.timeout(grace + _DRAIN_SLACK):
                await gone.wait()
        except TimeoutError:
            _log.warning("%d pods have not stopped in time; they are killed", len(left))
            await self.runtime.stop_all()

    async def _shut_down(self, pod: Pod, message: str) -> None:
        now = to_text(time.time())
        target = Condition(
            type="DisruptionTarget", status="True", reason="NodeShutdown", message=message, last_transition_time=now
        )
        conditions = msgspec.to_builtins(set_condition(pod.status.conditions, target))
        with contextlib.suppress(NotFound, Conflict):
            patch = {"status": {"conditions": conditions}}
            await self._client.patch(PODS, pod.metadata.name, patch, pod.metadata.namespace, subresource="status")
            await self._client.delete(PODS, pod.metadata.name, pod.metadata.namespace, uid=pod.metadata.uid)

    # nodes

    async def _register(self, node: Node) -> None:
        """Create the node, or bring labels, inventory and status of the present one up to date."""
        name = node.metadata.name
        try:
            await self._client.create(NODES, node)
        except AlreadyExists:
            meta = {"labels": node.metadata.labels, "annotations": node.metadata.annotations}
            await self._client.patch(NODES, name, {"metadata": meta})
        status = {"status": msgspec.to_builtins(node.status)}
        await self._client.patch(NODES, name, status, subresource="status")
        lease = Lease(
            metadata=ObjectMeta(name=name, namespace=LEASE_NAMESPACE),
            spec=LeaseSpec(
                holder_identity=name, lease_duration_seconds=40, renew_time=to_text(time.time(), micro=True)
            ),
        )
        with contextlib.suppress(AlreadyExists):
            await self._client.create(LEASES, lease)

    async def _forget_other_nodes(self) -> None:
        """All nodes of an embedded heddle are this process's; those of an earlier `--simulate` are no more."""
        for node in await self._client.list(NODES):
            name = node.metadata.name
            if name not in self._nodes:
                _log.info("node %s of an earlier start is not served any more: removed", name)
                with contextlib.suppress(NotFound):
                    await self._client.delete(NODES, name)
                with contextlib.suppress(NotFound):
                    await self._client.delete(LEASES, name, LEASE_NAMESPACE)

    async def _renew(self) -> None:
        while True:
            patch = {"spec": {"renewTime": to_text(time.time(), micro=True)}}
            for name, node in self._nodes.items():
                try:
                    await self._client.patch(LEASES, name, patch, namespace=LEASE_NAMESPACE)
                except NotFound:
                    await self._register(node)
                except ApiError as error:
                    _log.warning("lease of %s: %s", name, error)
            await asyncio.sleep(_RENEW)

    # pods

    def _pod_changed(self, type_: str, old: Pod | None, new: Pod | None) -> None:
        pod = new or old
        assert pod is not None
        if pod.spec.node_name in self._nodes:
            self._changed.put_nowait((type_, pod))

    def _references_changed(self, config_map: ConfigMap) -> None:
        self.runtime.references_changed(config_map.metadata.namespace)

    async def _forget(self, pod: Pod) -> None:
        if timer := self._deadlines.pop(pod.metadata.uid, None):
            timer.cancel()
        self._overdue.discard(pod.metadata.uid)
        await self.runtime.remove(pod.metadata.uid)

    def _watch_deadline(self, pod: Pod) -> None:
        """activeDeadlineSeconds: past it the pod is stopped and counts as failed; its logs stay."""
        uid, seconds = pod.metadata.uid, pod.spec.active_deadline_seconds
        if seconds is None or pod.finished or uid in self._deadlines:
            return
        started = to_seconds(pod.status.start_time) or time.time()
        delay = max(0.0, started + seconds - time.time())
        self._deadlines[uid] = asyncio.get_running_loop().call_later(delay, self._overrun, uid)

    def _overrun(self, uid: str) -> None:
        self._overdue.add(uid)
        if runner := self.runtime.pods.get(uid):
            runner.stop()
            runner.changed()

    # what the runtime asks and tells (heddle.runtime.ports)

    async def config_map(self, namespace: str, name: str) -> ConfigMap | None:
        """The ConfigMap that an environment refers to."""
        return self._config_maps.objects.get(f"{namespace}/{name}")

    async def secret(self, namespace: str, name: str) -> Secret | None:
        """The Secret that an environment refers to."""
        try:
            found: Secret = await self._client.get(SECRETS, name, namespace)
        except NotFound:
            return None
        return found

    async def pod_status(self, pod: Pod, status: PodStatus) -> None:
        """Write a pod's status."""
        if pod.metadata.uid in self._overdue and all(c.state.terminated for c in status.container_statuses):
            status = msgspec.structs.replace(
                status,
                phase="Failed",
                reason="DeadlineExceeded",
                message="Pod was active on the node longer than the specified deadline",
            )
        body = msgspec.to_builtins(status)
        mine = {c["type"] for c in body.get("conditions", [])}
        live = self._pods.objects.get(pod.key)
        if live is not None:  # conditions of others, such as DisruptionTarget, are not ours to drop
            others = [c for c in live.status.conditions if c.type not in mine]
            body["conditions"] = [*msgspec.to_builtins(others), *body.get("conditions", [])]
        patch = {
            "metadata": {"uid": pod.metadata.uid},
            "status": dict.fromkeys(("reason", "message")) | body,
        }
        with contextlib.suppress(NotFound, Conflict):
            await self._client.patch(
                PODS, pod.metadata.name, patch, namespace=pod.metadata.namespace, subresource="status"
            )

    async def pod_gone(self, pod: Pod) -> None:
        """A deleted pod has ended: let its object go."""
        meta = pod.metadata
        with contextlib.suppress(NotFound, Conflict):
            await self._client.delete(PODS, meta.name, meta.namespace, uid=meta.uid, grace_period=0)

    async def pod_event(self, pod: Pod, kind: str, reason: str, message: str) -> None:
        """Record an Event about a pod."""
        await self._events.record(pod, reason, message, warning=kind == "Warning")
