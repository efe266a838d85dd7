"""heddle's own table of jobs, which can say all that a job can be: CSV, or Parquet with the extra
``heddle[parquet]``.

Nothing to get: write it yourself, or with :func:`write` from any trace that heddle reads. Columns may come in any
order; needed are submit_s, duration_s, and gpus or gpus_per_task. An empty cell is as if the column were not there.
Columns of other names are refused, so that a slip in one does not go unseen. ``docs/traces.md`` has the table of
columns.
"""

from __future__ import annotations

import csv
import importlib
import io
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from heddle.api import quantity
from heddle.engine.model import WHOLE
from heddle.simulator.jobs import Job, Trace, split
from heddle.simulator.tables import Row, TableError, seconds, stem, table, whole, written
from heddle.simulator.traces.rows import trace

NEEDED = ("submit_s", "duration_s")
PARQUET = ".parquet"


def _signed(text: str) -> int:
    value = float(text)
    if not abs(value) < 2**53 or value != int(value):
        raise ValueError("give a whole number")
    return int(value)


def _endless(text: str) -> float:
    return math.inf if text in ("inf", "never") else seconds(text)


@lru_cache(maxsize=4096)
def gpu_milli(text: str) -> int:
    """Thousandths of GPUs: a share such as 0.25, or whole ones."""
    value = float(text)
    found = round(value * WHOLE) if 0 <= value < 2**40 else -1
    if found < 0 or abs(found - value * WHOLE) > 1e-6 or (found > WHOLE and found % WHOLE):
        raise ValueError("give a whole number of GPUs, or below one in thousandths such as 0.25")
    return found


def _power(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise ValueError("give 0 or more; 1 = it gains evenly")
    return value


_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def _truth(text: str) -> bool:
    if text.lower() not in _WORDS:
        raise ValueError("write true or false")
    return _WORDS[text.lower()]


@lru_cache(maxsize=4096)
def _cpus(text: str) -> int:
    return _not_negative(quantity.milli(text))


@lru_cache(maxsize=4096)
def _bytes(text: str) -> int:
    return _not_negative(quantity.whole(text))


def _not_negative(value: int) -> int:
    if not 0 <= value < 2**53:
        raise ValueError("give 0 or more, below 2^53")
    return value


def _models(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split("|") if name.strip())


def _speeds(text: str) -> tuple[tuple[str, float], ...]:
    pairs = [name.partition("=") for name in _models(text)]
    if not all(speed for _, _, speed in pairs):
        raise ValueError("write MODEL=SPEED, as H100=1|A100=0.45")
    return tuple((model.strip(), float(speed)) for model, _, speed in pairs)


@dataclass(frozen=True, slots=True)
class Column:
    """A column: the field of a job that it holds, and how it is read and written."""

    name: str
    field: str
    parse: Callable[[str], Any]
    render: Callable[[Any], str] = str


def _decimal(value: float) -> str:
    return repr(float(value)) if math.isfinite(value) else "inf"


COLUMNS = (
    Column("name", "name", str),
    Column("submit_s", "submit", seconds, _decimal),
    Column("duration_s", "duration", _endless, _decimal),
    Column("tasks", "tasks", whole),
    Column("gpus_per_task", "gpu", gpu_milli, lambda gpu: f"{gpu / WHOLE:g}" if gpu < WHOLE else str(gpu // WHOLE)),
    Column("cpu", "cpu", _cpus, quantity.render),
    Column("memory", "memory", _bytes, quantity.render_bytes),
    Column("queue", "queue", str),
    Column("user", "user", str),
    Column("priority", "priority", _signed),
    Column("preemptible", "preemptible", _truth, lambda value: str(value).lower()),
    Column("walltime_s", "walltime", seconds, _decimal),
    Column("models", "models", _models, "|".join),
    Column("speeds", "speeds", _speeds, lambda speeds: "|".join(f"{model}={speed!r}" for model, speed in speeds)),
    Column("least", "least", whole),
    Column("checkpoint_s", "checkpoint", seconds, _decimal),
    Column("restart_s", "restart", seconds, _decimal),
    Column("speedup", "speedup", _power, _decimal),
    Column("cancel_s", "cancel", seconds, _decimal),
    Column("topology", "topology", str),
    Column("required", "required", _truth, lambda value: str(value).lower()),
)
"""Every column but ``gpus``: GPUs of the whole job, in place of tasks and gpus_per_task."""

_DEFAULTS = {field.name: field.default for field in fields(Job)}
_ALWAYS = ("name", "submit_s", "duration_s", "tasks", "gpus_per_task")


def read(path: Path, node_gpus: int = 8) -> Trace:
    """Jobs of a table; where only ``gpus`` is said, jobs of more than a node has (``node_gpus``) become gangs.

    Raises:
        TableError: a row is broken, a column is missing or unknown, or Parquet is not installed.
    """
    found = _parquet(path) if path.suffix == PARQUET else table(path, NEEDED)
    here: tuple[Column, ...] = ()
    in_all = False

    def job(row: Row) -> Job:
        nonlocal here, in_all
        if not here:
            here, in_all = _columns(path, tuple(row))
        values = {column.field: row.read(column.name, column.parse) for column in here if row[column.name]}
        for column in NEEDED:
            row.read(column, str)
        if in_all:
            milli = row.read("gpus", gpu_milli)
            tasks, gpus = split(milli // WHOLE, node_gpus) if milli >= WHOLE else (1, 0)
            values |= {"tasks": tasks, "gpu": gpus * WHOLE or milli}
        else:
            row.read("gpus_per_task", str)
        values.setdefault("name", f"{row.line:07}")
        return Job(**values)

    return trace(stem(path), found, job)


def _columns(path: Path, names: tuple[str, ...]) -> tuple[tuple[Column, ...], bool]:
    """The columns that a table has, and whether it says GPUs of the whole job."""
    known = [column.name for column in COLUMNS]
    if strange := [name for name in names if name not in (*known, "gpus")]:
        raise TableError(f"{path}: column {', '.join(strange)} is not known; use: {', '.join((*known, 'gpus'))}")
    in_all = "gpus" in names
    if in_all == ("gpus_per_task" in names) or (in_all and "tasks" in names):
        raise TableError(f"{path}: give either the column gpus, or gpus_per_task with tasks")
    return tuple(column for column in COLUMNS if column.name in names), in_all


def write(trace: Trace, path: Path) -> None:
    """Writes a trace so that :func:`read` gives the same jobs, as Parquet or CSV by the name's ending, compressed if it
    ends so. The trace is then called as the file.

    Raises:
        ValueError: a field holds what no cell can, such as a model with ``|`` in its name.
    """
    used = [
        c for c in COLUMNS if c.name in _ALWAYS or any(getattr(j, c.field) != _DEFAULTS[c.field] for j in trace.jobs)
    ]
    rows = [[_cell(job, column) for column in used] for job in trace.jobs]
    if path.suffix == PARQUET:
        arrow = _arrow(path)
        cells = {column.name: [row[at] or None for row in rows] for at, column in enumerate(used)}
        importlib.import_module("pyarrow.parquet").write_table(
            arrow.table({name: arrow.array(values, arrow.string()) for name, values in cells.items()}), str(path)
        )
        return
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow([column.name for column in used])
    out.writerows(rows)
    written(path, text.getvalue().encode())


def _cell(job: Job, column: Column) -> str:
    value = getattr(job, column.field)
    if value == _DEFAULTS[column.field]:
        return "" if column.name not in _ALWAYS else column.render(value)
    text = column.render(value)
    if not text or text != text.strip() or column.parse(text) != value:
        raise ValueError(f"job {job.name}: {column.field} {value!r} cannot be written to a table; rename it")
    return text


def _parquet(path: Path) -> Iterator[Row]:
    """Rows of a Parquet file; they count as lines from 2, as if the first line of a CSV named the columns."""
    _arrow(path)
    parquet = importlib.import_module("pyarrow.parquet")
    try:
        file = parquet.ParquetFile(str(path))
        names = file.schema_arrow.names
    except (OSError, ValueError) as error:  # pyarrow's own errors are of these
        raise TableError(f"{path}: cannot be read: {error}") from error
    if missing := [name for name in NEEDED if name not in names]:
        raise TableError(f"{path}: has no column {', '.join(missing)}; it has: {', '.join(names) or 'nothing'}")
    line = 1
    for batch in file.iter_batches():
        for cells in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            line += 1
            texts = ("" if value is None else str(value) for value in cells)
            yield Row(path, line, dict(zip(names, texts, strict=True)))


def _arrow(path: Path) -> Any:
    try:
        return importlib.import_module("pyarrow")
    except ImportError as error:
        raise TableError(f"{path}: Parquet needs pyarrow; pip install 'heddle[parquet]', or give CSV") from error
