"""Pods as process groups of this machine.

One task a pod (init containers in order, then all containers), one task a container below it, and one that
reports: it always sends the newest status, so that a slow sink is never behind by more than one report.
"""

import asyncio
import contextlib
import logging
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from heddle.api.pod import ContainerState, ContainerStateWaiting, Pod, PodStatus
from heddle.runtime import logs, process
from heddle.runtime.container import ContainerRunner, Settings, generation
from heddle.runtime.ports import References, StatusSink
from heddle.runtime.status import now, pod_status

log = logging.getLogger(__name__)

REPORT_PATIENCE = 5.0
"""How long a stop waits for its last reports to be taken, in seconds."""


class PodRunner:
    """One pod on this machine."""

    def __init__(self, pod: Pod, directory: Path, references: References, sink: StatusSink, settings: Settings) -> None:
        self.pod = pod
        self.directory = directory
        self.references = references
        self.settings = settings
        self.sink = sink
        self.synced = asyncio.Event()
        self.start_time = pod.status.start_time or now()
        self.init = [ContainerRunner(self, c, init=True) for c in pod.spec.init_containers]
        self.main = [ContainerRunner(self, c) for c in pod.spec.containers]
        if self.init:
            for runner in self.main:
                runner.state = ContainerState(waiting=ContainerStateWaiting(reason="PodInitializing"))
        self.status = pod.status
        self._dirty = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._events: list[tuple[str, str, str]] = []
        self._ended = False
        self._gone_told = False
        self._silent = False
        self.finished = asyncio.Event()

    def begin(self) -> None:
        """Starts the pod's tasks."""
        for runner in (*self.init, *self.main):
            runner.load()
        self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._report())]
        if self.pod.metadata.deletion_timestamp:
            self.stop()

    async def end(self) -> None:
        """Ends the tasks; what runs goes on under its shim."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def update(self, pod: Pod) -> None:
        """Takes the newest desired state."""
        self.pod = pod
        self.synced.set()
        with contextlib.suppress(OSError):
            process.write_whole(self.directory / "pod.json", msgspec.json.encode(pod))
        if pod.finished and not self._ended:  # declared over by others: what runs must not outlive that
            self._silent = True
            self.stop()
        if pod.metadata.deletion_timestamp:
            self.stop()
        for runner in (*self.init, *self.main):
            runner.poke()
        if self._ended:
            self.changed()

    def stop(self) -> None:
        """Stops all containers for good."""
        self.synced.set()
        for runner in (*self.init, *self.main):
            runner.stop()

    def refresh(self) -> None:
        """ConfigMaps or Secrets of its namespace changed."""
        for runner in (*self.init, *self.main):
            runner.refresh()

    def changed(self) -> None:
        """A container's status changed."""
        self._dirty.set()

    def event(self, kind: str, reason: str, message: str) -> None:
        """Something worth an Event."""
        self._events.append((kind, reason, message))
        self._dirty.set()

    async def _may_start(self) -> None:
        await self.synced.wait()

    async def _run(self) -> None:
        try:
            failed = False
            for runner in self.init:
                await runner.run(self._may_start)
                ended = runner.state.terminated
                if ended is None or ended.exit_code != 0:
                    failed = True
                    break
            if not failed:
                await asyncio.gather(*(runner.run(self._may_start) for runner in self.main))
        except Exception:
            log.exception("pod %s: the runtime lost its thread", self.pod.key)
            raise
        finally:
            self._ended = True
            self.changed()

    async def _report(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            status = pod_status(
                self.pod,
                [r.status() for r in self.init],
                [r.status() for r in self.main],
                self.status,
                start_time=self.start_time,
            )
            events, self._events = self._events, []
            try:
                if status != self.status and not self._silent:
                    await self.sink.pod_status(self.pod, status)
                    self.status = status
                for event in events:
                    await self.sink.pod_event(self.pod, *event)
                if self._ended and self.pod.metadata.deletion_timestamp and not self._gone_told:
                    await self.sink.pod_gone(self.pod)
                    self._gone_told = True
            except Exception:
                log.exception("pod %s: its status could not be reported; trying again", self.pod.key)
                await asyncio.sleep(1)
                self._dirty.set()
            if self._ended and not self._dirty.is_set():
                self.finished.set()


class LocalRuntime:
    """Runs the pods of this machine's nodes."""

    def __init__(self, data: Path, references: References, sink: StatusSink, settings: Settings | None = None) -> None:
        """Nothing runs yet; call `adopt()` first.

        Args:
            data: Directory of the runtime's own; the pods lie in `data/pods/UID`.
            references: Looks up ConfigMaps and Secrets.
            sink: Hears about statuses.
            settings: Back-off and log sizes.
        """
        self.root = data / "pods"
        self.references = references
        self.sink = sink
        self.settings = settings or Settings()
        self.pods: dict[str, PodRunner] = {}
        self._living: set[str] = set()

    async def adopt(self) -> list[Pod]:
        """Takes over what an earlier heddle left running and collects what ended meanwhile.

        Returns:
            The pods found. They are reported, but nothing starts anew before `sync`; those that no longer exist
            must be given to `remove`.
        """
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = []
        for directory in sorted(self.root.iterdir()):
            try:
                pod = msgspec.json.decode((directory / "pod.json").read_bytes(), type=Pod)
            except (OSError, msgspec.DecodeError):
                log.warning("%s holds no readable pod.json; left alone", directory)
                continue
            if pod.metadata.uid in self.pods:
                continue
            self._add(pod, directory).changed()
            found.append(pod)
        return found

    async def sync(self, pod: Pod) -> None:
        """Makes a pod that is bound to one of our nodes run as it is written; returns before it does."""
        runner = self.pods.get(pod.metadata.uid)
        if runner is not None:
            runner.update(pod)
            return
        if pod.finished:
            if pod.metadata.deletion_timestamp:
                await self.sink.pod_gone(pod)
            return
        directory = self.root / pod.metadata.uid
        if pod.metadata.deletion_timestamp and not directory.exists():
            await self.sink.pod_gone(pod)
            return
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            log.warning("%s: %s", directory, error)
        runner = self._add(pod, directory)
        runner.update(pod)
        runner.changed()

    async def remove(self, uid: str) -> None:
        """Forgets a pod whose object is gone: kills what still runs and deletes its files. Unknown: no error."""
        runner = self.pods.get(uid)
        if runner is None:
            return
        meta = msgspec.structs.replace(
            runner.pod.metadata, deletion_timestamp=runner.pod.metadata.deletion_timestamp or now(),
            deletion_grace_period_seconds=0,
        )  # fmt: skip
        runner.pod = msgspec.structs.replace(runner.pod, metadata=meta)
        runner._gone_told = True
        runner.stop()
        await asyncio.wait({runner._tasks[0]})
        await runner.end()
        self.pods.pop(uid, None)
        shutil.rmtree(runner.directory, ignore_errors=True)

    def references_changed(self, namespace: str) -> None:
        """A ConfigMap or Secret of the namespace changed: containers that wait for one try again."""
        for uid in list(self._living):
            runner = self.pods.get(uid)
            if runner is None or runner.finished.is_set():
                self._living.discard(uid)
            elif runner.pod.metadata.namespace == namespace:
                runner.refresh()

    def status(self, uid: str) -> PodStatus | None:
        """The newest status of a pod, or None."""
        runner = self.pods.get(uid)
        return None if runner is None else runner.status

    def read_logs(
        self,
        uid: str,
        container: str = "",
        *,
        follow: bool = False,
        tail: int | None = None,
        previous: bool = False,
        since: float | None = None,
        timestamps: bool = False,
        limit_bytes: int | None = None,
    ) -> AsyncIterator[bytes]:
        """A container's log; see `heddle.runtime.logs.read`. No container means the first."""
        directory = self.root / uid
        if not container:
            runner = self.pods.get(uid)
            container = runner.main[0].spec.name if runner and runner.main else ""
        return logs.read(
            directory, container, follow=follow, tail=tail, previous=previous, since=since,
            timestamps=timestamps, limit_bytes=limit_bytes,
        )  # fmt: skip

    def check_logs(self, uid: str, container: str, *, previous: bool = False) -> None:
        """Raises NoLogs where `read_logs` would have nothing to read."""
        logs.choose(self.root / uid, container, previous=previous)

    async def close(self) -> None:
        """Lets go of everything; pods go on under their shims and can be adopted again."""
        for runner in list(self.pods.values()):
            await runner.end()
        self.pods.clear()

    async def stop_all(self) -> None:
        """Stops every pod within its grace (for `heddle down`); their records stay for the next start."""
        for runner in self.pods.values():
            runner.stop()
        tasks = {runner._tasks[0] for runner in self.pods.values()}
        if tasks:
            await asyncio.wait(tasks)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REPORT_PATIENCE):
                await asyncio.gather(*(runner.finished.wait() for runner in self.pods.values()))

    def _add(self, pod: Pod, directory: Path) -> PodRunner:
        runner = PodRunner(pod, directory, self.references, self.sink, self.settings)
        self.pods[pod.metadata.uid] = runner
        self._living.add(pod.metadata.uid)
        runner.begin()
        return runner


__all__ = ["LocalRuntime", "PodRunner", "Settings", "generation"]
