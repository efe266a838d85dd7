"""Answers to what people ask: why does it wait, what would become of this job or edit, how is the world now?"""

import asyncio
import time

import msgspec

from heddle.api.errors import BadRequest, NotFound
from heddle.api.pod import Pod
from heddle.api.queue import Queue
from heddle.api.workload import Workload, WorkloadReason
from heddle.control.scheduling import adapter, answers
from heddle.control.scheduling.answers import Answer, Preview
from heddle.control.scheduling.costs import Costs, told
from heddle.control.scheduling.obstacles import Obstacles
from heddle.control.scheduling.world import World
from heddle.engine import Budget, Snapshot, State


class Inquiries:
    """Answers by real what-ifs on copies of the engine's state."""

    def __init__(self, world: World, costs: Costs, obstacles: Obstacles, budget: Budget, lock: asyncio.Lock) -> None:
        """Answer for a world, of which nothing is copied while somebody else has `lock`."""
        self._world, self._costs, self._obstacles, self._budget, self._lock = world, costs, obstacles, budget, lock

    def key_of(self, namespace: str, name: str) -> str:
        """The workload of this name, else that of the pod or the Job (JobSet ...) of this name; "" = there is none."""
        key, works = f"{namespace}/{name}", self._world.works
        if works.get(key) is not None:
            return key
        return works.key_of(namespace, name) or works.of_owner(namespace, name)

    async def explain(self, key: str) -> Answer:
        """Why a workload waits and what would help, by real what-ifs on the present state; and what it cost others.

        Raises:
            NotFound: there is no such workload.
        """
        async with self._lock:
            workload = self._world.works.get(key)
            if workload is None:
                raise NotFound(f'workloads.heddle.dev "{key}" not found')
            if workload.status.phase == "Finished":
                return Answer(key, False, [WorkloadReason(code="Finished", message="it has ended")])
            if refused := self._world.refusal(workload):
                return Answer(key, False, [WorkloadReason(code="NotPermitted", message=refused)])
            self._world.dirty["Workload"].update(self._world.apply_deltas())  # the next cycle tells of them
            if problem := self._world.mirror.problems.get(key):
                return Answer(key, False, [WorkloadReason(code="Refused", message=problem)])
            if awaited := self._obstacles.awaited(key):
                return Answer(key, False, [WorkloadReason(code="VolumesPending", message=awaited)])
            if not self._world.mirror.knows(key):
                return Answer(key, False, [WorkloadReason(code="MembersMissing", message="it has no pods yet")])
            copy = await asyncio.to_thread(self._world.copy)
            cost, _ = self._costs.of(key, workload.status)
            unattachable = self._obstacles.unattachable(self._world.works.pods(key))
            not_offered = self._obstacles.not_offered(workload)
        found = await asyncio.to_thread(answers.answer, copy, key, time.time(), self._budget)
        found.cost = told(cost)
        if not found.admitted:
            found.reasons = not_offered + found.reasons + unattachable
        return found

    async def snapshot(self) -> Snapshot:
        """The world as the engine has it at the moment."""
        async with self._lock:
            self._world.dirty["Workload"].update(self._world.apply_deltas())  # the next cycle tells of them
            return await asyncio.to_thread(self._world.mirror.state.snapshot)

    async def preview(self, obj: Workload | Queue, pods: list[Pod]) -> Preview:
        """What would come of a workload with these pods if it were submitted now, or of a queue if it were written so.

        Raises:
            BadRequest: the engine refuses it; names the field.
        """
        async with self._lock:
            # under names that no pod can have, since there may be a job of this name
            shown = {pod.metadata.name: _renamed(pod) for pod in pods}
            for pod in shown.values():
                self._world.works.learn(pod, obj if isinstance(obj, Workload) else None)
            if self._world.claims is not None:
                self._world.claims.expect(pods)
            self._world.dirty["Workload"].update(self._world.apply_deltas())
            copy = await asyncio.to_thread(self._world.copy)
            models = self._world.mirror.models
            company = {name: self._world.works.company_of(pod) for name, pod in shown.items()}
            for pod in shown.values():
                self._world.works.forget(pod)
            reach, faults = self._world.works.reach_of_new(pods)
            unattachable = self._obstacles.unattachable(pods, pods)
            not_offered = self._obstacles.not_offered(obj) if isinstance(obj, Workload) else []
            attached, to_come = {}, []
            if self._world.claims is not None:
                attached = {pod.metadata.name: self._world.claims.volumes.asked(pod, pods) for pod in pods}
                to_come = self._world.claims.to_come(pods)
        now = time.time()
        try:
            if isinstance(obj, Queue):
                spec, name = adapter.queue_spec(obj), obj.metadata.name
                return await asyncio.to_thread(
                    answers.preview_change, copy, "Queue", name, lambda world: world.set_queue(spec), now, self._budget
                )
            if refused := self._world.refusal(obj):
                answer = Answer(obj.key, False, [WorkloadReason(code="NotPermitted", message=refused)])
                return Preview("TrainingJob", obj.key, answer)
            if faults:
                answer = Answer(obj.key, False, [WorkloadReason(code="Refused", message="; ".join(faults))])
                return Preview("TrainingJob", obj.key, answer)
            job = adapter.workload_spec(
                obj,
                pods,
                models=models,
                picks=self._world.picks,
                company_of=lambda pod: company[pod.metadata.name],
                reach_of=lambda pod: reach.get(pod.metadata.name, []),
                attached_of=lambda pod: attached.get(pod.metadata.name, {}),
            )
            preview = await asyncio.to_thread(answers.preview_job, copy, job, now, self._budget)
            if preview.answer is not None and preview.answer.admitted:
                preview.answer.assumptions += [WorkloadReason(code="VolumesPending", message=text) for text in to_come]
            elif preview.answer is not None:
                preview.answer.reasons = not_offered + preview.answer.reasons + unattachable
            return preview
        except ValueError as error:
            raise BadRequest(str(error)) from None

    async def copied(self) -> State:
        """The engine's state once more, to try things on; not while a cycle goes on."""
        async with self._lock:
            return await asyncio.to_thread(self._world.copy)


def _renamed(pod: Pod) -> Pod:
    return msgspec.structs.replace(
        pod, metadata=msgspec.structs.replace(pod.metadata, name=f"(preview) {pod.metadata.name}")
    )
