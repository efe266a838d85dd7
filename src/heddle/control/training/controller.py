"""Reconciles TrainingJobs.

A job owns one Workload, up to `nodes` pods and one rendezvous ConfigMap. Its members are the pods that have a node.
Whenever that set differs from the one in the ConfigMap and is whole (the scheduler's `status.bound` agrees, and the
minimum is met), a new generation of the world is written, and the members' processes start again: they resume from
their checkpoint with the new size. Roles that start after others join the world of a generation once these run.
Everything is derived from objects, so that a controller that was killed anywhere goes on where it was.

heddle's own nodes restart processes in place when they are asked to. A kubelet does not: there a pod is for one world.
Who was in a world that is over is deleted, and the pods that are made in their places form the next one.
"""

import asyncio
import contextlib
import functools
import logging
import math
import time
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from heddle.api.clock import readable, to_seconds, to_text
from heddle.api.core import ConfigMap
from heddle.api.errors import AlreadyExists, Forbidden, Invalid, NotFound
from heddle.api.meta import Condition
from heddle.api.pod import Pod, run_generation
from heddle.api.registry import CONFIGMAPS, PODS, TRAININGJOBS, WORKLOADS
from heddle.api.trainingjob import TrainingJob, TrainingJobStatus
from heddle.api.workload import CHECKPOINT_ANNOTATION, RESTART_ANNOTATION, Workload
from heddle.control.events import EventRecorder
from heddle.control.training import ledger, reading, roles
from heddle.control.training import pods as build
from heddle.control.training.ownership import JOB_LABEL, owner
from heddle.control.training.rendezvous import extension, members_text, rendezvous, rendezvous_name
from heddle.control.workqueue import WorkQueue
from heddle.store.client import Client
from heddle.store.informer import Informer, Informers

_log = logging.getLogger(__name__)

_TIMED_OUT = 124  # as timeout(1) has it
_SETTLES = 5.0
"""Seconds that a world waits for pods that are made anew to have places again."""

Meeting = Callable[[TrainingJob, Pod], tuple[str, int]]
"""Address of a pod of a job ("" = it has none yet), and a port at which it may listen for its peers."""

Saved = Callable[[TrainingJob], float | None]
"""When something was last written below the path of a job's checkpoint, in seconds; None = nothing, or it cannot be
seen. Called in a thread: file systems may be slow."""

_LOOK_EVERY = 30.0
"""Seconds between looks at a job's checkpoint. It only ranks victims, so that nobody waits for it."""


class TrainingController:
    """Brings TrainingJobs from wish to result."""

    def __init__(
        self, informers: Informers, meeting: Meeting, saved: Saved | None = None, *, restarts_in_place: bool = True
    ) -> None:
        """Reconcile the jobs of a store.

        Args:
            informers: of that store.
            meeting: knows where processes of this place can meet.
            saved: sees checkpoints; None: nobody here does.
            restarts_in_place: whether the nodes restart the processes of a pod when they are asked to, as heddle's
                own do; False: they are kubelets, pods are made anew, and a headless Service names them.
        """
        self._client = Client(informers.store)
        self._events = EventRecorder(self._client, "heddle-training")
        self._meeting = meeting
        self._saved = saved
        self._in_place = restarts_in_place
        self._looked: dict[str, float] = {}
        self._ledger = ledger.Ledger(self._client)
        self._deleted: dict[str, TrainingJob] = {}
        self._queue = WorkQueue("trainingjob", self.reconcile)
        self._jobs: Informer[TrainingJob] = informers.of(TRAININGJOBS)
        self._pods: Informer[Pod] = informers.of(PODS)
        self._workloads: Informer[Workload] = informers.of(WORKLOADS)
        self._worlds: Informer[ConfigMap] = informers.of(CONFIGMAPS)
        for informer in self._informers:
            informer.on_change(self._changed)

    @property
    def _informers(self) -> tuple[Informer[Any], ...]:
        return (self._jobs, self._pods, self._workloads, self._worlds)

    def _changed(self, type_: str, old: Any, new: Any) -> None:
        obj = new or old
        if type_ == "DELETED" and isinstance(obj, TrainingJob):
            self._deleted[obj.key] = obj
        name = obj.metadata.name if isinstance(obj, TrainingJob) else obj.metadata.labels.get(JOB_LABEL)
        if name:
            self._queue.add(f"{obj.metadata.namespace}/{name}")

    async def run(self) -> None:
        """Reconcile until cancelled; the informers are run by their owner."""
        for informer in self._informers:
            await informer.synced()
        await self._queue.run()

    async def reconcile(self, key: str) -> float | None:
        """Bring one job a step towards its wish; returns seconds after which to look again."""
        if (gone := self._deleted.get(key)) is not None:
            await self._record_deleted(gone)
            self._deleted.pop(key, None)
        job = self._jobs.objects.get(key)
        if job is None or job.metadata.deletion_timestamp:
            self._looked.pop(key, None)
            return None
        if job.status.phase in ("Succeeded", "Failed"):
            return await self._finished(job)
        namespace = job.metadata.namespace
        workload = self._workloads.objects.get(key)
        if workload is None:
            if not self._in_place and not await self._serve(job):
                return 1.0
            with contextlib.suppress(AlreadyExists):
                await self._client.create(WORKLOADS, build.workload(job))
            return None
        if (edits := build.edits(job, workload)) and owner(job) in workload.metadata.owner_references:
            await self._client.patch(WORKLOADS, job.metadata.name, {"spec": edits}, namespace=namespace)
        mine = self._mine(job)
        await self._make_missing(job, mine)
        if roles.succeeded(job, mine, reading.names_in(self._world_members(job))):
            policy = job.spec.success_policy
            text = f"{', '.join(policy.roles)} succeeded" if policy else "all processes succeeded"
            return await self._end(job, workload, mine, success=True, exit_code=0, message=text)
        world = self._world(job)
        generation = int(world.data.get("generation", "0")) if world else 0
        if failed := self._failed(mine, world, generation):
            return await self._fail(job, workload, mine, *failed)
        paced = any(nodes.gpu_speeds for nodes in job.spec.node_sets)
        limit = workload.status.walltime_seconds if paced else job.spec.walltime_seconds
        left = reading.left(limit, mine, time.time())
        if left is not None and left <= 0:
            text = f"ended by its walltime of {limit} s"
            return await self._end(job, workload, mine, success=False, exit_code=_TIMED_OUT, message=text)
        settling = await self._form(job, workload, mine, world, generation)
        await self._note(job, workload, mine, settling=settling is not None)
        look = await self._look_at_checkpoint(job, workload, mine.values())
        return min((wait for wait in (settling, look, left) if wait is not None), default=None)

    # parts of a reconcile

    def _mine(self, job: TrainingJob) -> dict[int, Pod]:
        found = {}
        for part in roles.parts(job):
            for index, name in zip(part.indexes, roles.pod_names(job, part), strict=True):
                pod = self._pods.objects.get(f"{job.metadata.namespace}/{name}")
                if pod is not None and any(o.uid == job.metadata.uid for o in pod.metadata.owner_references):
                    found[index] = pod
        return found

    def _world(self, job: TrainingJob) -> ConfigMap | None:
        return self._worlds.objects.get(f"{job.metadata.namespace}/{rendezvous_name(job)}")

    def _world_members(self, job: TrainingJob) -> list[str]:
        return reading.members_of(self._world(job))

    async def _serve(self, job: TrainingJob) -> bool:
        """Make the job's Service; False: that of an earlier job of this name is not gone yet."""
        service = build.service(job)
        if service is None:
            return True
        namespace = job.metadata.namespace
        try:
            await self._client.create(build.SERVICES, service, namespace)
        except AlreadyExists:
            with contextlib.suppress(NotFound):
                found = await self._client.get(build.SERVICES, job.metadata.name, namespace)
                owners = found["metadata"].get("ownerReferences", [])
                if any(one["uid"] == job.metadata.uid for one in owners):
                    return True
                if any(one["kind"] == job.kind for one in owners):
                    return False
                text = f"there is a Service {job.metadata.name} already, so that its pods have no names in DNS"
                await self._events.record(job, "ServiceExists", text, warning=True)
        return True

    async def _make_missing(self, job: TrainingJob, mine: dict[int, Pod]) -> None:
        async def make(index: int) -> None:
            pod = build.pod(job, index, restarts_in_place=self._in_place)
            try:
                await self._client.create(PODS, pod)
            except AlreadyExists:
                await self._tell_of_namesake(
                    job, self._pods.objects.get(f"{pod.metadata.namespace}/{pod.metadata.name}")
                )

        try:
            await asyncio.gather(*(make(index) for index in range(job.spec.size) if index not in mine))
        except (Invalid, Forbidden) as error:  # a field that a cluster needs, or a policy, or a quota of its namespace
            text = f"its pods are refused: {error}"
            if "violates PodSecurity" in text and job.spec.security_context is None:
                text += " (say as whom it runs: spec.securityContext, heddle run --user UID:GID)"
            if job.status.message != text:
                await self._status(job, phase=job.status.phase or "Pending", message=text)
                await self._events.record(job, "PodsRefused", text, warning=True)
            raise

    async def _tell_of_namesake(self, job: TrainingJob, pod: Pod | None) -> None:
        """A pod of the job cannot be made, since another is called so; one of an earlier job of its name will go."""
        if pod is None or pod.metadata.labels.get(JOB_LABEL) == job.metadata.name:
            return
        text = f"there is a pod {pod.metadata.name} already that is not its own: delete it, or name the job otherwise"
        if job.status.message != text:
            await self._status(job, phase=job.status.phase or "Pending", message=text)
            await self._events.record(job, "PodExists", text, warning=True)

    def _failed(self, mine: dict[int, Pod], world: ConfigMap | None, generation: int) -> tuple[Pod, int, str] | None:
        """The first member whose process failed in the present generation, with exit code and reason."""
        restarted = reading.restarted(world)
        here = {members_text([p]) for p in mine.values() if not p.metadata.deletion_timestamp}
        if not here.issuperset(reading.members_of(world)):
            return None  # a member leaves: that its peers fail over it is no failure, and they restart anyway
        for pod in mine.values():
            if pod.metadata.deletion_timestamp or not pod.spec.node_name:
                continue
            told = pod.metadata.annotations.get(RESTART_ANNOTATION, "")
            if pod.metadata.name in restarted and told != str(generation):
                continue  # that was the process of an earlier world
            if members_text([pod]) in restarted:
                continue  # it is on its way out
            if (end := reading.failure(pod)) and run_generation(end.container_id, told) == told:
                return (
                    pod,
                    end.exit_code,
                    ": ".join(filter(None, (end.reason or "Error", reading.last_line(end.message)))),
                )
        return None

    async def _fail(
        self, job: TrainingJob, workload: Workload, mine: dict[int, Pod], pod: Pod, code: int, why: str
    ) -> float | None:
        text = f"{pod.metadata.name} failed with exit code {code} ({why})"
        if job.spec.restart_policy == "Never" or job.status.restarts >= job.spec.max_restarts:
            if job.spec.restart_policy != "Never":
                text += f"; {job.status.restarts} of {job.spec.max_restarts} restarts were used"
            return await self._end(job, workload, mine, success=False, exit_code=code or 1, message=text)
        if (delay := reading.back_off(job, time.time())) > 0:
            await self._status(job, phase="Restarting", message=f"{text}; next start in {math.ceil(delay)} s")
            return delay
        now = to_text(time.time())
        restarts = job.status.restarts + 1
        await self._status(job, phase="Restarting", restarts=restarts, message=text, last_restart_time=now)
        await self._events.record(job, "Restarting", text, warning=True)
        for other in mine.values():  # a pod that has ended cannot start again: a new one takes its place
            if other.finished:
                with contextlib.suppress(NotFound):
                    await self._client.delete(PODS, other.metadata.name, other.metadata.namespace, grace_period=0)
        # without those who ended; where too few are left, the new pods are waited for: no world is too small
        there = [p for p in mine.values() if p.bound] if self._in_place else []
        members = roles.members(job, workload, there, stage=0)
        world = self._worlds.objects[f"{job.metadata.namespace}/{rendezvous_name(job)}"]
        await self._write_world(job, mine, members, int(world.data["generation"]) + 1)
        return None

    async def _form(
        self, job: TrainingJob, workload: Workload, mine: dict[int, Pod], world: ConfigMap | None, generation: int
    ) -> float | None:
        """Bring the world up to the members; returns seconds after which to look again where time matters."""
        before = self._world_members(job)
        staying = [p for p in mine.values() if p.status.phase != "Failed" and not p.metadata.deletion_timestamp]
        present = {members_text([p]): p for p in staying}
        done = [p for member, p in present.items() if member in before and p.status.phase == "Succeeded"]
        if done and not all(member in present for member in before):  # one left before its end: all resume without it
            for pod in done:
                with contextlib.suppress(NotFound):
                    await self._client.delete(PODS, pod.metadata.name, pod.metadata.namespace, grace_period=0)
            return None
        placed = [p for p in mine.values() if p.spec.node_name and not p.metadata.deletion_timestamp]
        if any(p.status.phase == "Failed" for p in placed):
            for pod in placed:
                if pod.status.phase == "Failed":  # its node was lost, or it was stopped from outside
                    with contextlib.suppress(NotFound):
                        await self._client.delete(PODS, pod.metadata.name, pod.metadata.namespace, grace_period=0)
            return None
        if (
            not done
            and not self._in_place
            and (wait := await self._clear(job, mine, reading.restarted(world))) is not None
        ):
            return wait
        stage, last = roles.reached(job, reading.names_in(before)), roles.last_stage(job)
        members = roles.members(job, workload, placed, stage=stage)
        if world is not None and world.data.get("members", "") == members_text(members):
            if members and stage < last and self._serve_all(job, workload, mine, world, stage):
                members = roles.members(job, workload, placed, stage=stage + 1)
                if members and workload.status.bound == len(placed) and self._met(job, members):
                    await self._extend_world(job, mine, world, members)
                    return None
            await self._restart(
                mine, reading.restarted(world) if self._in_place else reading.names(members), generation
            )
            return None
        if done:  # the training is ending: nobody joins it, also where a member that is done left room
            return None
        members = roles.members(job, workload, placed, stage=0)
        if members and workload.status.bound != len(placed):
            return None  # binds or evictions of the same plan are still on their way
        if world is not None or members:
            over = not self._in_place and any(members_text([pod]) in before for pod in members)
            if not over and members and not self._met(job, members):
                return None  # a pod has no address yet
            await self._write_world(job, mine, [] if over else members, generation + 1)
            if world is not None and members and before:
                await self._tell_resize(job, len(members), len(before), stage)
            if not self._in_place and (over or not members):
                return _SETTLES
        return None

    def _serve_all(
        self, job: TrainingJob, workload: Workload, mine: dict[int, Pod], world: ConfigMap, stage: int
    ) -> bool:
        """Whether the programs of the parts up to a stage run in the present world, as many as these need."""
        members, restarted = reading.names_in(self._world_members(job)), reading.restarted(world)
        generation = world.data["generation"]
        for part in roles.parts(job):
            there = [mine[at] for at in part.indexes if at in mine and mine[at].metadata.name in members]
            serving = sum(reading.serves(pod, generation, restarted=pod.metadata.name in restarted) for pod in there)
            if part.stage <= stage and serving < roles.least(job, workload, part):
                return False
        return True

    def _met(self, job: TrainingJob, members: list[Pod]) -> bool:
        """Whether it is known where those can be found whom others look for."""
        sought = members if job.spec.roles else members[:1]
        return all(self._meeting(job, pod)[0] for pod in sought)

    async def _extend_world(self, job: TrainingJob, mine: dict[int, Pod], world: ConfigMap, members: list[Pod]) -> None:
        """Let parts in that start once others run: nobody restarts for it."""
        data = extension(job, world, members, functools.partial(self._meeting, job))
        version = {"resourceVersion": world.metadata.resource_version}
        patch: dict[str, Any] = {"metadata": version, "data": data}
        await self._client.patch(CONFIGMAPS, world.metadata.name, patch, namespace=job.metadata.namespace)
        if not self._in_place:
            await self._restart(mine, reading.names(members), int(world.data["generation"]))

    async def _tell_resize(self, job: TrainingJob, now: int, before: int, stage: int) -> None:
        how = "resuming from its checkpoint" if job.spec.checkpoint else "starting again (it has no checkpoint)"
        nodes = "1 node" if now == 1 else f"{now} nodes"
        text = f"all roles start anew, in order: {how}" if stage else f"{nodes} instead of {before}: {how}"
        await self._status(job, phase="Restarting", resizes=job.status.resizes + 1, message=text)
        await self._events.record(job, "Resized", text)

    async def _clear(self, job: TrainingJob, mine: dict[int, Pod], over: set[str]) -> float | None:
        """Delete who was in a world that is over; returns how long to wait for them to be gone and replaced.

        Their successors get places in one plan, or soon after: a world of the first of them would be over at once.
        """
        there = [p for p in mine.values() if members_text([p]) in over]
        for pod in there:
            if not pod.metadata.deletion_timestamp:
                with contextlib.suppress(NotFound):
                    await self._client.delete(PODS, pod.metadata.name, pod.metadata.namespace, uid=pod.metadata.uid)
        names = reading.names_in(over)
        if there or names - reading.names(mine.values()):
            return _SETTLES
        first = {at for part in roles.parts(job) if part.stage == 0 for at in part.indexes}
        waiting = [p for at, p in mine.items() if at in first and p.metadata.name in names and not p.spec.node_name]
        made = (to_seconds(p.metadata.creation_timestamp) or 0.0 for p in waiting)
        left = max(made, default=-math.inf) + _SETTLES - time.time()
        return min(left, _SETTLES) if left > 0 else None

    async def _write_world(self, job: TrainingJob, mine: dict[int, Pod], members: list[Pod], generation: int) -> None:
        before = set(self._world_members(job))
        old = self._world(job)
        if self._in_place:
            stale = [p.metadata.name for p in mine.values() if p.bound and members_text([p]) in before]
        elif members:
            stale = []
        else:
            stale = sorted(before | reading.restarted(old))
        world = rendezvous(job, members, generation, functools.partial(self._meeting, job), restart=stale)
        if old is None:
            with contextlib.suppress(AlreadyExists):
                await self._client.create(CONFIGMAPS, world)
        else:
            gone: dict[str, Any] = dict.fromkeys(old.data)
            await self._client.patch(
                CONFIGMAPS,
                world.metadata.name,
                {"metadata": {"resourceVersion": old.metadata.resource_version}, "data": gone | world.data},
                namespace=job.metadata.namespace,
            )
        if self._in_place:
            await self._restart(mine, set(stale), generation)
        elif members:  # the news makes a kubelet look again at containers that waited for their rank
            await self._restart(mine, reading.names(members), generation)
        else:
            await self._clear(job, mine, set(stale))

    async def _restart(self, mine: dict[int, Pod], names: set[str], generation: int) -> None:
        """Tell the processes of an earlier world to start again; done twice it changes nothing."""

        async def mark(pod: Pod) -> None:
            patch = {"metadata": {"annotations": {RESTART_ANNOTATION: str(generation)}}}
            with contextlib.suppress(NotFound):
                await self._client.patch(PODS, pod.metadata.name, patch, namespace=pod.metadata.namespace)

        await asyncio.gather(
            *(
                mark(pod)
                for pod in mine.values()
                if pod.metadata.name in names
                and pod.bound
                and pod.metadata.annotations.get(RESTART_ANNOTATION) != str(generation)
            )
        )

    async def _note(self, job: TrainingJob, workload: Workload, mine: dict[int, Pod], *, settling: bool) -> None:
        members = self._world_members(job)
        running = [p for p in mine.values() if p.status.phase == "Running" and not p.metadata.deletion_timestamp]
        trouble = "" if self._in_place else next(filter(None, map(reading.trouble, mine.values())), "")
        if members and len(running) + sum(p.status.phase == "Succeeded" for p in mine.values()) >= len(members):
            phase, text = reading.standing(job, reading.names_in(members))
        elif members or trouble:
            phase, text = (job.status.phase or "Pending"), trouble or job.status.message
        elif settling:
            phase, text = "Restarting", job.status.message
        else:
            reasons = "; ".join(r.message for r in workload.status.reasons)
            phase, text = "Pending", reasons
        await self._status(
            job,
            phase=phase,
            message=text,
            active_nodes=len(members),
            active_by_role=reading.by_role(job, reading.names_in(members)),
        )

    async def _look_at_checkpoint(self, job: TrainingJob, workload: Workload, mine: Iterable[Pod]) -> float | None:
        """Tell the scheduler when the job last saved; returns seconds until the next look, None where there is none.

        Files are looked at where they can be seen; a program says it by an annotation of its pod.
        """
        said = [readable(pod.metadata.annotations.get(CHECKPOINT_ANNOTATION)) for pod in mine]
        told = max((at for at in said if at is not None), default=None)
        look = self._saved if job.spec.checkpoint is not None else None
        if (look is None and told is None) or not self._world_members(job):
            return None
        now = time.monotonic()
        if (wait := self._looked.get(job.key, -math.inf) + _LOOK_EVERY - now) > 0:
            return wait
        self._looked[job.key] = now
        seen = await asyncio.to_thread(look, job) if look is not None else None
        if (at := max((t for t in (seen, told) if t is not None), default=None)) is None:
            return _LOOK_EVERY
        stamp = to_text(min(at, time.time()))
        await self._status(job, checkpoint_time=stamp)
        if to_seconds(stamp) > (
            readable(workload.status.checkpoint_time) or 0
        ):  # a training that saves elsewhere may have told itself
            meta = workload.metadata
            patch = {"status": {"checkpointTime": stamp}}
            with contextlib.suppress(NotFound):
                await self._client.patch(WORKLOADS, meta.name, patch, namespace=meta.namespace, subresource="status")
        return _LOOK_EVERY if look is not None else None

    async def _end(
        self,
        job: TrainingJob,
        workload: Workload,
        mine: dict[int, Pod],
        *,
        success: bool,
        exit_code: int,
        message: str,
    ) -> float | None:
        """The job's result first; what is left of it is then stopped, after a crash as well."""
        await self._status(
            job,
            phase="Succeeded" if success else "Failed",
            message=message,
            exit_code=exit_code,
            active_nodes=0,
            active_by_role={},
            completion_time=to_text(time.time()),
        )
        await self._events.record(job, "Succeeded" if success else "Failed", message, warning=not success)
        return await self._finished(job)

    async def _finished(self, job: TrainingJob) -> float | None:
        """Stop what still runs (keeping its logs), tell the scheduler, and collect the job when its time is up."""
        key = job.key
        for pod in self._mine(job).values():
            if pod.finished or pod.metadata.deletion_timestamp:
                continue
            with contextlib.suppress(NotFound):
                if pod.spec.node_name:
                    if pod.spec.active_deadline_seconds is None:
                        patch = {"spec": {"activeDeadlineSeconds": 1}}
                        await self._client.patch(PODS, pod.metadata.name, patch, namespace=pod.metadata.namespace)
                else:
                    await self._client.delete(PODS, pod.metadata.name, pod.metadata.namespace)
        workload = self._workloads.objects.get(key)
        stopping = any(p.bound for p in self._mine(job).values())
        if workload is not None and workload.status.phase != "Finished" and not stopping:
            patch2: dict[str, Any] = {"status": {"phase": "Finished", "reasons": None, "position": None}}
            with contextlib.suppress(NotFound):
                await self._client.patch(
                    WORKLOADS, workload.metadata.name, patch2, namespace=workload.metadata.namespace,
                    subresource="status",
                )  # fmt: skip
        if not stopping and not ledger.is_recorded(job):
            await self._ledger.record(job.metadata.uid, ledger.entry_of(job))
            recorded = Condition(type="Recorded", status="True", last_transition_time=to_text(time.time()))
            await self._status(job, conditions=[*job.status.conditions, recorded])
        if job.spec.ttl_seconds_after_finished is None:
            return None
        left = to_seconds(job.status.completion_time) + job.spec.ttl_seconds_after_finished - time.time()
        if left > 0:
            return left
        with contextlib.suppress(NotFound):
            await self._client.delete(TRAININGJOBS, job.metadata.name, job.metadata.namespace, uid=job.metadata.uid)
        return None

    async def _record_deleted(self, job: TrainingJob) -> None:
        """A job that was deleted before its end has used what it held until now."""
        if ledger.is_recorded(job):
            return
        now = time.time()
        entry = ledger.entry_of(job)
        if entry.phase not in ("Succeeded", "Failed"):
            held = roles.gpus_held(job)
            entry.gpu_seconds += round(held * max(0.0, now - (to_seconds(job.status.accounted_time) or now)))
            entry.phase, entry.ended = "Deleted", to_text(now)
        await self._ledger.record(job.metadata.uid, entry)

    async def _status(self, job: TrainingJob, **changes: Any) -> None:
        """Write what changed in the job's status, with the GPU time held since the last write."""
        now = time.time()
        old = job.status
        status = msgspec.structs.replace(old, **changes)
        status.observed_generation, status.nodes = job.metadata.generation, job.spec.size
        world = self._world(job)
        status.rendezvous = int(world.data.get("generation", "0")) if world else 0
        if status.phase == "Running" and not status.start_time:
            status.start_time = to_text(now)
        status.conditions = reading.conditions(job, status, now)
        if status == old:
            return
        held = roles.gpus_held(job)
        since = to_seconds(old.accounted_time) or now
        status.gpu_seconds = old.gpu_seconds + round(held * max(0.0, now - since))
        status.accounted_time = to_text(now)
        body = msgspec.to_builtins(status)
        patch = {"status": {name: body.get(name, _ZERO.get(name)) for name in _STATUS_FIELDS}}
        with contextlib.suppress(NotFound):
            await self._client.patch(
                TRAININGJOBS, job.metadata.name, patch, namespace=job.metadata.namespace, subresource="status"
            )
        job.status = status


_STATUS_FIELDS = tuple(f.encode_name for f in msgspec.structs.fields(TrainingJobStatus))
_ZERO: dict[str, Any] = {"nodes": 0, "activeNodes": 0, "restarts": 0, "resizes": 0, "rendezvous": 0, "gpuSeconds": 0}
