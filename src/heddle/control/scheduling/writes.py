"""How what the scheduler decides reaches the objects.

`Writes` does it where heddle is all there is: at once, in the objects that heddle defines. `ClusterWrites` does it in a
cluster, where most pods are nobody's Workload: what pods must remember (a promised node) is in the pods, evictions go
through the eviction API, and what is only to be read follows after.
"""

import asyncio
import contextlib
import functools
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import msgspec

from heddle.api.clock import to_text
from heddle.api.errors import AlreadyExists, Conflict, NotFound, TooManyRequests
from heddle.api.meta import Condition, Kind, ObjectMeta, find_condition, set_condition
from heddle.api.pod import Pod
from heddle.api.registry import PODS, QUEUES, WORKLOADS
from heddle.api.workload import DEVICES_ANNOTATION, ReservedPlace, Workload
from heddle.control.events import EventRecorder
from heddle.control.grouping.groups import ALONE
from heddle.control.redaction import told_in
from heddle.control.scheduling.afterwards import Afterwards
from heddle.store.client import Client
from heddle.store.port import PatchType

_FIELDS = (
    "phase", "conditions", "reasons", "position", "expectedStartTime", "bound", "brokenSince", "admittedCounts",
    "walltimeSeconds", "observedGeneration", "cost", "evictions",
)  # fmt: skip
_PROMISED = 2.0
"""Seconds before it is told that a pod waits for room that others leave for it: by then it mostly has it."""


class Writes:
    """Writes at once; a write is done when the call returns."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._events = EventRecorder(client, "heddle-scheduler")

    def urgent(self, many: int = 1) -> contextlib.AbstractContextManager[None]:
        """Work waits for what is written inside: so many writes."""
        return contextlib.nullcontext()

    def told(self, text: str, namespace: str) -> str:
        """A text as it may stand in objects of a namespace."""
        return text

    async def bind(self, namespace: str, pod: str, uid: str, node: str, devices: Sequence[str]) -> None:
        """Bind a pod to its node and devices.

        Raises:
            ApiError: it is not bound.
        """
        annotations = {DEVICES_ANNOTATION: ",".join(devices)} if devices else {}
        await self._client.bind(PODS, pod, namespace, node, uid=uid, annotations=annotations)

    async def node_of(self, namespace: str, pod: str, uid: str) -> str:
        """The node that a pod is bound to; "" = none, or it is gone."""
        try:
            found: Pod = await self._client.get(PODS, pod, namespace)
        except NotFound:
            return ""
        return found.spec.node_name if found.metadata.uid == uid else ""

    async def evict(self, pod: Pod, condition: Condition) -> str:
        """Have a pod stopped; returns why that is refused, or ""."""
        meta = pod.metadata
        with contextlib.suppress(NotFound):
            await self._condition(pod, condition)
            await self._client.delete(PODS, meta.name, meta.namespace, uid=meta.uid)
        return ""

    async def _condition(self, pod: Pod, condition: Condition) -> None:
        meta = pod.metadata
        conditions = msgspec.to_builtins(set_condition(pod.status.conditions, condition))
        await self._client.patch(
            PODS, meta.name, {"status": {"conditions": conditions}}, namespace=meta.namespace, subresource="status"
        )

    async def promise(self, workload: Workload, places: list[ReservedPlace], before: list[ReservedPlace]) -> None:
        """Remember places that are held for a workload, in place of those that were before."""
        meta = workload.metadata
        patch = {"status": {"reservation": msgspec.to_builtins(places) or None}}
        with contextlib.suppress(NotFound):
            await self._client.patch(WORKLOADS, meta.name, patch, namespace=meta.namespace, subresource="status")

    async def status(self, workload: Workload, waiting: Iterable[Pod]) -> None:
        """Make the status that people read true.

        Args:
            workload: it, with its new status.
            waiting: its pods that have no node.
        """
        meta = workload.metadata
        with contextlib.suppress(NotFound):
            await self._client.patch(
                WORKLOADS, meta.name, _status(workload), namespace=meta.namespace, subresource="status"
            )

    async def queue(self, name: str, status: dict[str, Any]) -> None:
        """Make the fields of a queue's status true that people read."""
        with contextlib.suppress(NotFound):
            await self._client.patch(QUEUES, name, {"status": status}, subresource="status")

    def gone(self, pod: Pod) -> None:
        """A pod is not there any more."""

    async def event(self, about: Kind, reason: str, message: str, *, warning: bool = False) -> None:
        """Tell people of something that happened."""
        await self._events.record(about, reason, message, warning=warning)


def _status(workload: Workload) -> dict[str, Any]:
    body = msgspec.to_builtins(workload.status)
    return {"status": {name: body.get(name) for name in _FIELDS}}


def _why(workload: Workload) -> str:
    """Why its pods wait, their place in the line, and when they are expected to start; "" = they do not wait."""
    status = workload.status
    said = [reason.message for reason in status.reasons]
    if said and status.position is not None:
        said.append(f"place {status.position} in the line of queue {workload.spec.queue}")
    if said and status.expected_start_time:
        when = status.expected_start_time
        said.append(f"expected to start at {when} if work ends at its walltime and nobody comes before it")
    return "; ".join(said)


class ClusterWrites(Writes):
    """The same in a cluster."""

    def __init__(
        self,
        client: Client,
        after: Afterwards,
        namespaces: Collection[str],
        budgets_of: Callable[[Pod], Sequence[str]] = lambda pod: (),
    ) -> None:
        """Write in a cluster.

        Args:
            client: of its API server.
            after: takes what may wait; its owner runs it.
            namespaces: of the cluster, as they are: what is written in one names no workload of another.
            budgets_of: the disruption budgets that keep a pod.
        """
        super().__init__(client)
        self._after, self._namespaces, self._budgets_of = after, namespaces, budgets_of

    def urgent(self, many: int = 1) -> contextlib.AbstractContextManager[None]:
        """See `Writes.urgent`."""
        return self._after.urgent(many)

    def told(self, text: str, namespace: str) -> str:
        """See `Writes.told`: workloads of other namespaces are not named."""
        return told_in(text, namespace, self._namespaces)

    async def evict(self, pod: Pod, condition: Condition) -> str:
        """See `Writes.evict`. A PodDisruptionBudget may refuse.

        A pod that none keeps is deleted, as by kube-scheduler: for an eviction the API server reads all budgets of the
        namespace anew and writes twice, which takes several times as long.
        """
        meta = pod.metadata
        try:
            if self._budgets_of(pod):
                eviction: dict[str, Any] = {
                    "apiVersion": "policy/v1",
                    "kind": "Eviction",
                    "metadata": {"name": meta.name, "namespace": meta.namespace},
                    "deleteOptions": {"preconditions": {"uid": meta.uid}},
                }
                await self._client.store.create(PODS, eviction, meta.namespace, subresource="eviction")
            else:
                await self._client.delete(PODS, meta.name, meta.namespace, uid=meta.uid)
        except (NotFound, Conflict):  # it is gone, or another of its name is there
            return ""
        except TooManyRequests as error:
            return str(error)
        if pod.spec.termination_grace_period_seconds == 0:
            return ""  # nothing is left to read it off

        condition = msgspec.structs.replace(condition, message=self.told(condition.message, meta.namespace))

        async def say() -> None:  # the API server has put a condition of its own, which names no reason, meanwhile
            patch = {"status": {"conditions": [msgspec.to_builtins(condition)]}}
            with contextlib.suppress(NotFound):
                await self._merge(meta.namespace, meta.name, meta.uid, patch)

        self._after.put(("eviction", meta.uid), say)
        return ""

    async def _merge(self, namespace: str, name: str, uid: str, patch: dict[str, Any]) -> None:
        await self._client.store.patch(
            PODS, name, {"metadata": {"uid": uid}, **patch}, namespace=namespace,
            type=PatchType.STRATEGIC, subresource="status",
        )  # fmt: skip

    async def promise(self, workload: Workload, places: list[ReservedPlace], before: list[ReservedPlace]) -> None:
        """See `Writes.promise`. Pods without a Workload object remember their nodes themselves.

        Of a gang that is written before anybody is evicted for it. A pod by itself loses nothing but its place where
        a crash forgets it: who is due is found anew from what is free, so that its promise follows after, and is often
        kept before it was written.
        """
        if not workload.derived:
            await super().promise(workload, places, before)
            return
        then = {place.pod: place.node for place in before}
        now = {place.pod: place.node for place in places}
        changed = [name for name in {**then, **now} if then.get(name) != now.get(name)]
        if sum(pod_set.count for pod_set in workload.spec.pod_sets) > 1:
            await asyncio.gather(*(self._nominate(workload, name, now.get(name, "")) for name in changed))
            return
        for name in changed:
            key = ("promise", workload.metadata.namespace, name)
            self._after.put(key, functools.partial(self._nominate, workload, name, now.get(name, "")), wait=_PROMISED)

    async def bind(self, namespace: str, pod: str, uid: str, node: str, devices: Sequence[str]) -> None:
        """See `Writes.bind`."""
        self._forget(namespace, pod, uid)
        await super().bind(namespace, pod, uid, node, devices)

    def _forget(self, namespace: str, pod: str, uid: str) -> None:
        """Why a pod waited, and for which node, is of no interest any more."""
        self._after.drop(("promise", namespace, pod))
        self._after.drop(("pod", uid))

    def gone(self, pod: Pod) -> None:
        """See `Writes.gone`."""
        meta = pod.metadata
        self._forget(meta.namespace, meta.name, meta.uid)
        self._after.drop(("eviction", meta.uid))

    async def _nominate(self, workload: Workload, pod: str, node: str) -> None:
        patch = {"status": {"nominatedNodeName": node or None}}
        with contextlib.suppress(NotFound):
            await self._client.store.patch(
                PODS, pod, patch, namespace=workload.metadata.namespace, subresource="status"
            )

    async def status(self, workload: Workload, waiting: Iterable[Pod]) -> None:
        """See `Writes.status`: follows after."""
        text = _why(workload)
        for pod in waiting if text else ():
            self._tell(pod, text, wait=_PROMISED if workload.status.reservation else 0.0)
        if not workload.derived:
            self._after.put(("workload", workload.key), lambda: super(ClusterWrites, self).status(workload, ()))
        elif sum(pod_set.count for pod_set in workload.spec.pod_sets) > 1:
            self._after.put(("workload", workload.key), lambda: self._keep(workload))

    async def queue(self, name: str, status: dict[str, Any]) -> None:
        """See `Writes.queue`: follows after."""
        self._after.put(("queue", name), functools.partial(super().queue, name, status))

    def _tell(self, pod: Pod, text: str, *, wait: float) -> None:
        """The condition that kube-scheduler would write, so that autoscalers and people understand it."""
        meta = pod.metadata
        said = find_condition(pod.status.conditions, "PodScheduled")
        if said is not None and said.message == text:
            return
        condition = Condition(
            type="PodScheduled",
            status="False",
            reason="Unschedulable",
            message=text,
            last_transition_time=to_text(time.time()),
        )

        async def say() -> None:
            with contextlib.suppress(NotFound, Conflict):  # it is gone, or another of its name is there
                patch = {"status": {"conditions": [msgspec.to_builtins(condition)]}}
                await self._merge(meta.namespace, meta.name, meta.uid, patch)

        self._after.put(("pod", meta.uid), say, wait=wait)

    async def _keep(self, workload: Workload) -> None:
        """Make an object of what pods make up together, for people to read."""
        meta = workload.metadata
        patch = _status(workload)
        try:
            await self._client.patch(WORKLOADS, meta.name, patch, namespace=meta.namespace, subresource="status")
        except NotFound:
            body = msgspec.to_builtins(workload)
            body.pop("status", None)
            with contextlib.suppress(AlreadyExists, NotFound):  # NotFound: its namespace is going
                await self._client.create(WORKLOADS, body, meta.namespace)
                await self._client.patch(WORKLOADS, meta.name, patch, namespace=meta.namespace, subresource="status")

    async def event(self, about: Kind, reason: str, message: str, *, warning: bool = False) -> None:
        """See `Writes.event`: follows after, once it is calm. What is told of a pod by itself is told of the pod."""
        if isinstance(about, Workload) and about.metadata.name.startswith(ALONE):
            meta = about.metadata
            name = meta.name.removeprefix(ALONE)
            about = Pod(metadata=ObjectMeta(name=name, namespace=meta.namespace, uid=meta.uid))
        message = self.told(message, about.metadata.namespace)
        write = functools.partial(self._events.record, about, reason, message, warning=warning)
        self._after.note(("event", about.kind, about.metadata.uid or about.key, reason), write)
