"""Holds a container to its limits: by a cgroup where we may make one, else by what rlimits can do.

With a delegated cgroup v2 (systemd gives users one) `memory.max` and `cpu.max` are exact. Without:

- memory: RLIMIT_DATA at the limit plus SLACK. RLIMIT_AS is out of the question, as CUDA and JAX reserve address
  space by the terabyte. RLIMIT_DATA counts writable memory that is promised, whether touched or not (thread
  stacks, allocator arenas), and each process by itself; hence the slack. It stops a runaway, not an overdraft.
- CPU: not held. RLIMIT_CPU counts seconds of a lifetime, and pinning to CPUs makes two pods fight for one CPU
  beside an idle one.
"""

import contextlib
import functools
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from heddle.api.pod import Container
from heddle.api.quantity import milli, whole

SLACK = 1 << 30
CPU_PERIOD = 100_000


@dataclass(frozen=True)
class Limits:
    """What the shim applies, and the sentence about it."""

    rlimits: dict[str, int] = field(default_factory=dict)
    cgroup: str = ""
    told: str = ""


def writable_cgroup(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> Path | None:
    """A cgroup v2 directory in which we may make limited groups, or None."""
    if not (root / "cgroup.controllers").exists():
        return None
    try:
        line = next(text for text in own.read_text().splitlines() if text.startswith("0::"))
    except (OSError, StopIteration):
        return None
    here = root / line[3:].lstrip("/")
    for base in (here, here.parent):
        if not base.is_relative_to(root) or base == root:
            continue
        try:
            enabled = (base / "cgroup.subtree_control").read_text().split()
        except OSError:
            continue
        if {"memory", "cpu"} <= set(enabled) and all(
            os.access(path, os.W_OK) for path in (base, base / "cgroup.procs")
        ):
            return base
    return None


@functools.cache
def _base() -> Path | None:
    return writable_cgroup() if sys.platform.startswith("linux") else None


def plan(container: Container, name: str, base: Path | None = None) -> Limits:
    """How the container's limits are held.

    Args:
        container: Whose `resources.limits` count.
        name: Names the cgroup, unique on the machine.
        base: Where cgroups may be made; found out by default.

    Raises:
        ValueError: a limit is no quantity.
    """
    limits = container.resources.limits
    memory = whole(limits["memory"]) if "memory" in limits else None
    cpu = milli(limits["cpu"]) if "cpu" in limits else None
    if memory is None and cpu is None:
        return Limits()
    base = base or _base()
    if base is not None:
        group = base / f"heddle-{name}"
        try:
            group.mkdir(exist_ok=True)
            if memory is not None:
                (group / "memory.max").write_text(str(memory))
            if cpu is not None:
                (group / "cpu.max").write_text(f"{max(1000, cpu * CPU_PERIOD // 1000)} {CPU_PERIOD}")
        except OSError:
            with contextlib.suppress(OSError):
                group.rmdir()
        else:
            return Limits(cgroup=str(group), told=f"limits of {container.name} held by cgroup {group.name}")
    rlimits = {}
    parts = []
    if memory is not None:
        rlimits["RLIMIT_DATA"] = memory + SLACK
        parts.append("memory roughly, by RLIMIT_DATA at the limit plus 1Gi for each process")
    if cpu is not None:
        parts.append("CPU not at all")
    told = f"no cgroup may be made here: limits of {container.name} are held: {'; '.join(parts)}"
    return Limits(rlimits=rlimits, told=told)
