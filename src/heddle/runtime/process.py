"""The shim seen from heddle: its files, its lock, its process."""

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import psutil
from msgspec import field

from heddle.api.meta import Struct
from heddle.runtime import shim

SHIM = Path(shim.__file__)
POLL = 0.2
POD_UID_VARIABLE = "HEDDLE_POD_UID"
CONTAINER_VARIABLE = "HEDDLE_CONTAINER"
SHIM_LOST = "ShimLost"


class Run(Struct, omit_defaults=False):
    """run.json: what the shim runs, and what heddle wants to remember with it."""

    run: int
    argv: list[str]
    env: dict[str, str]
    cwd: str
    grace_seconds: float = 30.0
    log_max_bytes: int = 10 << 20
    log_keep: int = 5
    umask: int = 0o022
    rlimits: dict[str, int] = field(default_factory=dict)
    cgroup: str = ""
    restarts: int = 0
    failures: int = 0
    generation: str = ""


class Started(Struct):
    """started.RUN.json."""

    shim_pid: int
    pid: int
    pgid: int
    create_time: float
    started_at: str
    shim_ticks: int | None = None
    ticks: int | None = None
    boot_id: str = ""


class Exit(Struct):
    """exit.RUN.json."""

    exit_code: int
    signal: int = 0
    started_at: str = ""
    finished_at: str = ""
    reason: str = ""
    message: str = ""
    stop_requested: bool = False


def locked(directory: Path) -> bool:
    """Whether a shim holds the container's lock."""
    try:
        fd = os.open(directory / "lock", os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def write_whole(path: Path, data: bytes) -> None:
    """Replaces a file, or leaves it as it was.

    Raises:
        OSError: for instance a full disk.
    """
    try:
        shim.write_atomic(str(path), data)
    except OSError:
        with contextlib.suppress(OSError):
            Path(f"{path}.tmp").unlink()
        raise


def spawn(pod_dir: Path, container: str) -> tuple[int, int]:
    """Starts a shim. Returns its pid and an fd that tells ("started PID") and ends when the program has started."""
    directory = pod_dir / container
    read, write = os.pipe()
    try:
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", "-E", str(SHIM), str(pod_dir), container, "3"],
            {"PATH": os.environ.get("PATH", os.defpath)},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, str(directory / "shim.err"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
                (os.POSIX_SPAWN_DUP2, write, 3),
            ],
        )
    except BaseException:
        os.close(read)
        raise
    finally:
        os.close(write)
    os.set_blocking(read, False)
    return pid, read


async def read_line(fd: int) -> bytes:
    """What a pipe says up to its end or its first line; closes it."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[bytes] = loop.create_future()

    def readable() -> None:
        try:
            data = os.read(fd, 4096)
        except BlockingIOError:
            return
        if not done.done():
            done.set_result(data)

    loop.add_reader(fd, readable)
    try:
        return await done
    finally:
        loop.remove_reader(fd)
        os.close(fd)


async def wait_gone(pid: int) -> int | None:
    """Waits until a process has ended; its exit code if it was our child."""
    loop = asyncio.get_running_loop()
    fd = -1
    if hasattr(os, "pidfd_open"):
        with contextlib.suppress(OSError):
            fd = os.pidfd_open(pid)
    if fd >= 0:
        gone: asyncio.Future[None] = loop.create_future()

        def ended() -> None:
            if not gone.done():
                gone.set_result(None)

        loop.add_reader(fd, ended)
        try:
            await gone
        finally:
            loop.remove_reader(fd)
            os.close(fd)
        return _reap(pid)
    while True:
        try:
            ended_pid, status = os.waitpid(pid, os.WNOHANG)  # noqa: ASYNC222 - WNOHANG
        except ChildProcessError:
            if not psutil.pid_exists(pid):
                return None
        else:
            if ended_pid:
                return os.waitstatus_to_exitcode(status)
        await asyncio.sleep(POLL)


def _reap(pid: int) -> int | None:
    try:
        _, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return None
    return os.waitstatus_to_exitcode(status)


def same_process(pid: int, ticks: int | None, create_time: float, boot: str) -> bool:
    """Whether the process of that pid is still the one that was recorded."""
    if boot and boot != shim.boot_id():
        return False
    if ticks is not None:
        return shim.start_ticks(pid) == ticks
    try:
        return abs(psutil.Process(pid).create_time() - create_time) < 2
    except psutil.Error:
        return False


def kill_leftovers(started: Started | None, uid: str, container: str) -> None:
    """Kills what a lost shim left: the recorded group, and whatever carries the pod's mark in its environment."""
    if (
        started is not None
        and started.pgid > 1
        and same_process(started.pid, started.ticks, started.create_time, started.boot_id)
    ):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(started.pgid, signal.SIGKILL)
    me = os.getuid()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.uids().real != me:
                continue
            environment = process.environ()
            if environment.get(POD_UID_VARIABLE) == uid and environment.get(CONTAINER_VARIABLE) == container:
                process.kill()


def decode_json(path: Path) -> Any:
    """A JSON file, or None where there is none that can be read."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
