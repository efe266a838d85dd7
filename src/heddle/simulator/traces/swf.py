"""The Standard Workload Format, in which the Parallel Workloads Archive keeps logs of parallel machines since 1993.

Where to get them: https://www.cs.huji.ac.il/labs/parallel/workload/logs.html (``.swf.gz``, read as they are). The
format: https://www.cs.huji.ac.il/labs/parallel/workload/swf.html. 18 fields a line, -1 = not known, ``;`` before the
header's ``Key: value``. Of a job this reads 1 number, 2 submit [s], 3 wait [s], 4 run [s], 5 allocated processors, 8
requested processors, 9 requested time [s], 11 status, 12 user, 15 queue; memory, dependencies and think times are not
used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from heddle.engine.model import WHOLE
from heddle.simulator.jobs import Job, Trace, split
from heddle.simulator.tables import Row, TableError, lines, stem
from heddle.simulator.traces.rows import trace

FIELDS = (
    *("job", "submit", "wait", "run", "allocated", "cpu_time", "used_memory", "processors", "walltime", "memory"),
    *("status", "user", "group", "program", "queue", "partition", "preceding", "think_time"),
)
_KEY = re.compile(r"\s*;\s*([A-Za-z ]+?)\s*:\s*(.*?)\s*$")
_CANCELLED = 5
_PARTS = (2, 3, 4)  # stretches of a job whose whole has a line of its own


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine of a log, as its header tells.

    Attributes:
        nodes: how many there are (0 = not told).
        processors: of all of them.
    """

    nodes: int
    processors: int


def read(path: Path, node_gpus: int = 8, *, processors: int = 1) -> Trace:
    """Jobs of a log. Requested processors are GPUs; those of more than a node has become gangs.

    A job that was cancelled before it ran gives up when it did in the log. What has no processors or no run time, and
    the parts of a job that is told as a whole, are left out and counted.

    Args:
        path: the log.
        node_gpus: GPUs of a node.
        processors: how many of them make one GPU, rounded up.

    Raises:
        TableError: a line is broken.
    """
    check_processors(processors)

    def job(row: Row) -> Job | str:
        status = int(row.read("status", _number))
        if status in _PARTS:
            return "part of a job that is told as a whole"
        asked, allocated = row.read("processors", _number), row.read("allocated", _number)
        count = int(asked if asked > 0 else allocated)
        if count <= 0:
            return "no processors"
        submit, wait, run = row.read("submit", _number), row.read("wait", _number), row.read("run", _number)
        walltime = row.read("walltime", _number)
        never = run <= 0 and status == _CANCELLED
        if run < 0 and not never:
            return "no run time"
        if submit < 0:
            return "no submit time"
        if never and (wait < 0 or walltime <= 0):
            return "cancelled, and not told when or what it asked for"
        tasks, gpus = split(-(-count // processors), node_gpus)
        user, queue = int(row.read("user", _number)), int(row.read("queue", _number))
        return Job(
            row.read("job", str),
            submit,
            walltime if never else run,
            tasks=tasks,
            gpu=gpus * WHOLE,
            queue=f"queue-{queue}" if queue >= 0 else "default",
            user=f"user-{user}" if user >= 0 else "",
            walltime=walltime if walltime > 0 else None,
            cancel=submit + wait if never else None,
        )

    return trace(stem(path), _rows(path), job)


def check_processors(count: int) -> None:
    """Refuses a number of processors that cannot make a GPU."""
    if count < 1:
        raise ValueError(f"processors: {count!r} is not valid; give 1 or more for each GPU")


def machine(path: Path) -> Machine:
    """The machine that the header tells of: MaxNodes and MaxProcs.

    Raises:
        TableError: the header says neither, or no whole number.
    """
    found: dict[str, int] = {}
    for line, key, value in header(path):
        if key in ("MaxNodes", "MaxProcs"):
            number = value.split(maxsplit=1)[0] if value else ""
            if not number.isdigit() or not int(number):
                raise TableError(f"{path}:{line}: {key}: {value!r} is not valid; give a whole number from 1")
            found[key] = int(number)
    if not found:
        raise TableError(f"{path}: the header has neither MaxNodes nor MaxProcs; describe the cluster as 128x8")
    nodes = found.get("MaxNodes", 0)
    return Machine(nodes, found.get("MaxProcs", nodes))


def header(path: Path) -> Iterator[tuple[int, str, str]]:
    """Line, key and value of each ``; Key: value`` before the first job."""
    with closing(lines(path, lenient=True)) as found:  # old headers are in other encodings
        for at, text in enumerate(found, 1):
            if text.strip() and not text.lstrip().startswith(";"):
                return
            if told := _KEY.match(text):
                yield at, told[1], told[2]


def _rows(path: Path) -> Iterator[Row]:
    for at, text in enumerate(lines(path, lenient=True), 1):
        cells = text.split()
        if not cells or cells[0].startswith(";"):
            continue
        if len(cells) < len(FIELDS):
            raise TableError(f"{path}:{at}: has {len(cells)} fields; a line of this format has {len(FIELDS)}")
        yield Row(path, at, _named(cells))


def _named(cells: list[str]) -> Mapping[str, str]:
    return dict(zip(FIELDS, cells, strict=False))  # some logs add fields of their own at the end


def _number(text: str) -> float:
    value = float(text)
    if not -1 <= value < 1e15:
        raise ValueError("give a number, or -1 where it is not known")
    return value
