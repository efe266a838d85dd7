"""One container of a pod: started, watched, stopped, started again.

A container is driven by one task, so that nothing here races with itself. The shim's files are the truth: the
task only reads what the shim wrote, which is why heddle may be killed at any line and go on later.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from heddle.api.pod import (
    Container,
    ContainerState,
    ContainerStateRunning,
    ContainerStateTerminated,
    ContainerStateWaiting,
    ContainerStatus,
    Pod,
    run_id,
)
from heddle.api.workload import RESTARTS_ANNOTATION
from heddle.runtime import environment, image, limits, process, shim
from heddle.runtime.ports import References
from heddle.runtime.status import now

T = TypeVar("T")

RESTART_GENERATION = "heddle.dev/restart-generation"
"""Annotation of a pod: when it changes, its containers are stopped and started again, which is no failure."""
DEFAULT_GRACE = 30.0


@dataclass(frozen=True)
class Settings:
    """What may be tuned; the defaults are the kubelet's."""

    back_off: float = 10.0
    back_off_max: float = 300.0
    back_off_reset: float = 600.0
    config_retry: float = 5.0
    log_max_bytes: int = 10 << 20
    log_keep: int = 5


class Home(Protocol):
    """The pod that a container belongs to, as far as the container sees it."""

    pod: Pod
    directory: Path
    references: References
    settings: Settings

    def changed(self) -> None:
        """A container's status changed."""
        ...

    def event(self, kind: str, reason: str, message: str) -> None:
        """Something worth an Event."""
        ...


def grace_seconds(pod: Pod) -> float:
    """How long a stop may take."""
    given = pod.metadata.deletion_grace_period_seconds if pod.metadata.deletion_timestamp else None
    if given is None:
        given = pod.spec.termination_grace_period_seconds
    return DEFAULT_GRACE if given is None else float(max(0, given))


def generation(pod: Pod) -> str:
    """The restart generation that is wished for."""
    return pod.metadata.annotations.get(RESTART_GENERATION, "")


def _seconds(stamp: str) -> float:
    try:
        return datetime.fromisoformat(stamp[:19] + "+00:00").timestamp()
    except ValueError:
        return 0.0


class ContainerRunner:
    """Drives one container. `run()` ends when it will not run again."""

    def __init__(self, home: Home, container: Container, *, init: bool = False) -> None:
        self.home = home
        self.spec = container
        self.init = init
        self.directory = home.directory / container.name
        self.state = ContainerState(
            waiting=ContainerStateWaiting(reason="PodInitializing" if init else "ContainerCreating")
        )
        self.last_state = ContainerState()
        self.restarts = 0
        self.failures = 0
        self.number = 0
        self.generation = ""
        self.done = False
        self.stop_asked = False
        self.pid: int | None = None
        self.wake = asyncio.Event()
        self.references_changed = asyncio.Event()
        self._warned = False

    # -- what others see and ask -------------------------------------------------------------------

    def status(self) -> ContainerStatus:
        """As it goes into the pod's status."""
        running = self.state.running is not None
        ended = self.state.terminated
        ready = (ended is not None and ended.exit_code == 0) if self.init else running
        return ContainerStatus(
            name=self.spec.name,
            state=self.state,
            last_state=self.last_state,
            ready=ready,
            restart_count=self.restarts,
            image=self.spec.image,
            container_id=run_id(self.generation, self.number) if running else "",
            started=running,
        )

    def stop(self) -> None:
        """Asks for a graceful stop for good; asking again with a shorter grace shortens it."""
        self.stop_asked = True
        self.wake.set()

    def poke(self) -> None:
        """The pod changed: look at it again."""
        self.wake.set()

    def refresh(self) -> None:
        """ConfigMaps or Secrets changed."""
        self.references_changed.set()
        self.wake.set()

    def stopping(self) -> bool:
        """Whether it is to stop for good."""
        return self.stop_asked

    # -- the task ----------------------------------------------------------------------------------

    def load(self) -> None:
        """Takes over what an earlier heddle left: the last run and what is known of it."""
        run = self._read("run.json", process.Run)
        if run is None:
            return
        self.number, self.restarts, self.failures, self.generation = (
            run.run, run.restarts, run.failures, run.generation,
        )  # fmt: skip
        if (previous := self._exit(self.number - 1)) is not None:
            self.last_state = ContainerState(terminated=_terminated(previous, ""))

    @property
    def has_run(self) -> bool:
        """Whether a run was begun before: a shim lives, or left a record."""
        return self._started(self.number) is not None or self._exit(self.number) is not None

    async def run(self, may_start: Callable[[], Awaitable[None]]) -> None:
        """Runs the container until it is done.

        Args:
            may_start: Awaited before each start; a container adopted at start-up waits here for its pod's sync.
        """
        adopted = self.has_run or process.locked(self.directory)
        while not self.done:
            if not adopted:
                await may_start()
                if self.stopping():
                    self._end_without_run()
                    return
                if not await self._start():
                    continue
            adopted = False
            ended = await self._watch()
            await self._after(ended, may_start)

    def _end_without_run(self) -> None:
        if self.state.terminated is None:
            self.state = ContainerState(
                terminated=ContainerStateTerminated(exit_code=137, reason="ContainerStatusUnknown", finished_at=now())
            )
        self.done = True
        self.home.changed()

    async def _after(self, ended: process.Exit, may_start: Callable[[], Awaitable[None]]) -> None:
        """Decides what follows the end of a run."""
        self.pid = None
        terminated = _terminated(ended, run_id(self.generation, self.number))
        if self.stopping():
            self.state, self.done = ContainerState(terminated=terminated), True
            self.home.changed()
            return
        policy = self.home.pod.spec.restart_policy
        if self.init and policy == "Always":
            policy = "OnFailure"
        asked = ended.stop_requested and self.generation != generation(self.home.pod)
        final = not asked and (policy == "Never" or (policy == "OnFailure" and ended.exit_code == 0))
        if final:
            self.state, self.done = ContainerState(terminated=terminated), True
            self.home.changed()
            return
        if asked:  # a pod that is about to go on must not look finished, whatever its policy
            self.last_state = ContainerState(terminated=terminated)
            self.state = ContainerState(waiting=ContainerStateWaiting(reason="ContainerCreating"))
        else:
            self.state = ContainerState(terminated=terminated)
        self.home.changed()
        await may_start()
        if not asked and self.home.pod.metadata.annotations.get(RESTARTS_ANNOTATION) == "OnRequest":
            await self._until_asked()
        elif not self._restart_asked() and not self.stopping():
            if _seconds(ended.finished_at) - _seconds(ended.started_at) >= self.home.settings.back_off_reset:
                self.failures = 0
            await self._back_off(ended)
        self.last_state = ContainerState(terminated=terminated)
        if self.stopping():
            self.state, self.done = ContainerState(terminated=terminated), True
            self.home.changed()
            return
        if self._restart_asked():
            self.failures = 0
        else:
            self.failures += 1
            self.restarts += 1
        self.number += 1
        self.state = ContainerState(waiting=ContainerStateWaiting(reason="ContainerCreating"))

    def _restart_asked(self) -> bool:
        return self.generation != generation(self.home.pod)

    async def _until_asked(self) -> None:
        while True:
            self.wake.clear()
            if self.stopping() or self._restart_asked():
                return
            await self.wake.wait()

    async def _back_off(self, ended: process.Exit) -> None:
        settings = self.home.settings
        if self.failures == 0:
            return
        delay = min(settings.back_off * 2 ** min(self.failures - 1, 30), settings.back_off_max)
        until = time.monotonic() + delay - max(0.0, time.time() - _seconds(ended.finished_at) - 1)
        if until <= time.monotonic():
            return
        self.last_state = ContainerState(terminated=_terminated(ended, run_id(self.generation, self.number)))
        meta = self.home.pod.metadata
        message = (
            f"back-off {delay:g}s restarting failed container={self.spec.name}"
            f" pod={meta.name}_{meta.namespace}({meta.uid})"
        )
        self.state = ContainerState(waiting=ContainerStateWaiting(reason="CrashLoopBackOff", message=message))
        self.home.changed()
        self.home.event("Warning", "BackOff", message)
        while True:
            self.wake.clear()
            if self.stopping() or self._restart_asked():
                return
            left = until - time.monotonic()
            if left <= 0:
                return
            await self._sleep(left)

    async def _sleep(self, seconds: float) -> None:
        """Until something changes, at most so long. Clear `wake` before looking at what may change."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.wake.wait(), seconds)

    def _wait_reason(self, reason: str, message: str) -> None:
        before = self.state.waiting
        if before is None or (before.reason, before.message) != (reason, message):
            self.state = ContainerState(waiting=ContainerStateWaiting(reason=reason, message=message))
            self.home.changed()
            # the members of a job always wait a moment for their world: that is for the status, not worth an event
            if reason != "CreateContainerConfigError" or (before is not None and before.reason == reason):
                self.home.event("Warning", "Failed", f"Error: {message}")

    # -- starting ----------------------------------------------------------------------------------

    async def _start(self) -> bool:
        """Starts a run; false where it could not be, after having waited for a change."""
        home = self.home
        self.wake.clear()
        try:
            if fault := image.command_fault(self.spec):
                raise _CannotCreate(fault)
            run = await self._plan()
            self._write(run)
            pid, ready = process.spawn(home.directory, self.spec.name)
        except environment.NotReady as error:
            self._wait_reason("CreateContainerConfigError", str(error))
        except (_CannotCreate, ValueError) as error:
            self._wait_reason("CreateContainerError", str(error))
        except OSError as error:
            where = f" {error.filename}" if error.filename else ""
            remedy = "; free space on that disk" if error.errno == 28 else ""
            self._wait_reason("CreateContainerError", f"cannot write{where}: {error.strerror}{remedy}")
        else:
            self.generation = run.generation
            self.pid = pid
            await process.read_line(ready)
            return True
        if not self.stopping():
            await self._sleep(home.settings.config_retry)
        return False

    async def _plan(self) -> process.Run:
        home, spec = self.home, self.spec
        pod = home.pod
        wished = generation(pod)
        env = await environment.resolve(pod, spec, home.references)
        meta = pod.metadata
        env |= {
            process.POD_UID_VARIABLE: meta.uid,
            process.CONTAINER_VARIABLE: spec.name,
            "HEDDLE_POD_NAME": meta.name,
            "HEDDLE_POD_NAMESPACE": meta.namespace,
        }
        held = limits.plan(spec, f"{meta.uid}-{spec.name}")
        if not self._warned:
            self._warned = True
            if warning := image.image_warning(spec):
                home.event("Warning", "ImageIgnored", warning)
            if held.told:
                home.event("Normal" if held.cgroup else "Warning", "Limits", held.told)
        work = self.directory / "work"
        return process.Run(
            run=self.number,
            argv=[environment.expand(word, env) for word in [*spec.command, *spec.args]],
            env=env,
            cwd=spec.working_dir or str(work),
            grace_seconds=grace_seconds(pod),
            log_max_bytes=home.settings.log_max_bytes,
            log_keep=home.settings.log_keep,
            rlimits=held.rlimits,
            cgroup=held.cgroup,
            restarts=self.restarts,
            failures=self.failures,
            generation=wished,
        )

    def _write(self, run: process.Run) -> None:
        (self.directory / "work").mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in self.directory.glob("log.*"):
            if int(old.name.split(".")[1]) < run.run - 1:
                old.unlink(missing_ok=True)
        for what in ("started", "exit"):
            (self.directory / f"{what}.{run.run - 2}.json").unlink(missing_ok=True)
        process.write_whole(self.directory / "run.json", msgspec.json.encode(run))

    # -- watching ----------------------------------------------------------------------------------

    async def _watch(self) -> process.Exit:
        """Waits for the end of the current run, stopping it where that is asked. Returns how it ended."""
        code: int | None = None
        while True:
            if (ended := self._exit(self.number)) is not None and (
                self.pid is None or not process.locked(self.directory)
            ):
                if self.pid is not None:
                    code = await process.wait_gone(self.pid)
                return ended
            started = self._started(self.number)
            pid = self.pid or (started.shim_pid if started else None)
            if self.pid is None and not process.locked(self.directory):
                return self._exit(self.number) or self._lost(code, started)
            if pid is None:  # a shim of an earlier heddle that has not yet told its pid
                await asyncio.sleep(0.02)
                continue
            if started is not None and self.state.running is None:
                stamp = started.started_at[:19] + "Z"
                self.state = ContainerState(running=ContainerStateRunning(started_at=stamp))
                self.home.changed()
            code = await self._until_gone(pid)
            self.pid = None
            if code in (shim.BUSY, shim.ALREADY_STARTED):
                code = None  # an earlier shim of this very run is or was there: go by its files

    async def _until_gone(self, pid: int) -> int | None:
        gone = asyncio.create_task(process.wait_gone(pid))
        sent: float | None = None
        try:
            while not gone.done():
                self.wake.clear()
                if self.stopping() or (self._restart_asked() and not self.done):
                    grace = grace_seconds(self.home.pod)
                    if sent is None or grace < sent:
                        sent = grace
                        self._signal_stop(pid, grace)
                await _first(gone, self.wake.wait())
            return gone.result()
        finally:
            gone.cancel()

    def _signal_stop(self, pid: int, grace: float) -> None:
        with contextlib.suppress(OSError):
            process.write_whole(self.directory / f"stop.{self.number}", str(grace).encode())
        if process.locked(self.directory):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGTERM)

    def _lost(self, code: int | None, started: process.Started | None) -> process.Exit:
        """The shim is gone without a record: ends what it left, and records that."""
        if started is None and code is not None and code >= 0:
            told = ""
            with contextlib.suppress(OSError):
                told = (self.directory / "shim.err").read_text(errors="replace").strip().rpartition("\n")[2]
            ended = process.Exit(
                exit_code=128,
                reason="StartError",
                message=f"the shim could not start the program (exit code {code}): {told}",
                started_at=now(),
                finished_at=now(),
            )
        else:
            process.kill_leftovers(started, self.home.pod.metadata.uid, self.spec.name)
            ended = process.Exit(
                exit_code=137,
                signal=9,
                reason=process.SHIM_LOST,
                message="the shim that kept this container was killed; what it left behind has been ended",
                started_at=started.started_at if started else now(),
                finished_at=now(),
                stop_requested=self.stopping(),
            )
        with contextlib.suppress(OSError):
            process.write_whole(self.directory / f"exit.{self.number}.json", msgspec.json.encode(ended))
        return ended

    # -- files -------------------------------------------------------------------------------------

    def _started(self, number: int) -> process.Started | None:
        return self._read(f"started.{number}.json", process.Started)

    def _exit(self, number: int) -> process.Exit | None:
        return self._read(f"exit.{number}.json", process.Exit)

    def _read(self, name: str, kind: type[T]) -> T | None:
        try:
            return msgspec.json.decode((self.directory / name).read_bytes(), type=kind)
        except (OSError, msgspec.DecodeError):
            return None

    def discard(self) -> None:
        """Deletes all files of the container."""
        shutil.rmtree(self.directory, ignore_errors=True)


class _CannotCreate(Exception):
    """The container cannot be made as it is written."""


def _terminated(ended: process.Exit, container_id: str) -> ContainerStateTerminated:
    return ContainerStateTerminated(
        exit_code=ended.exit_code,
        signal=ended.signal,
        reason=ended.reason,
        message=ended.message,
        started_at=ended.started_at[:19] + "Z" if ended.started_at else None,
        finished_at=ended.finished_at[:19] + "Z" if ended.finished_at else None,
        container_id=container_id,
    )


async def _first(task: "asyncio.Task[Any]", other: Coroutine[Any, Any, Any]) -> None:
    """Waits for the first of the two; the other coroutine is dropped."""
    second = asyncio.create_task(other)
    try:
        await asyncio.wait({task, second}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        second.cancel()
