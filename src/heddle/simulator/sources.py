"""Where jobs come from: a file in any of the known formats, or a description of made-up work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from heddle.simulator.jobs import Trace
from heddle.simulator.tables import TableError, first
from heddle.simulator.traces import itp, openb, own, philly, swf, synthetic

FORMS: dict[str, Callable[[Path, int], Trace]] = {
    "heddle": own.read,
    "itp": itp.read,
    "openb": lambda path, _: openb.pods(path),
    "philly": philly.read,
    "swf": swf.read,
}
"""Readers by the name of their format; they take a file and the GPUs of a node."""

_COLUMNS = {"heddle": own.NEEDED, "itp": itp.COLUMNS, "openb": ("cpu_milli", "num_gpu"), "philly": philly.COLUMNS}


def read(
    text: str | Path,
    *,
    form: str | None = None,
    node_gpus: int = 8,
    capacity: int | None = None,
    processors: int = 1,
) -> Trace:
    """Jobs of a file, or made-up ones.

    Args:
        text: a path, or ``synthetic:jobs=1000,...`` (see :mod:`heddle.simulator.traces.synthetic`).
        form: a name of :data:`FORMS`; None = seen from the first line.
        node_gpus: GPUs of a node; jobs of more that tell only a number become gangs.
        capacity: GPUs of the cluster, for made-up work of which the load is told.
        processors: of a Standard Workload Format log that make one GPU.

    Raises:
        ValueError: the format is not known, or a file or description is broken (:class:`TableError` names the line).
    """
    if synthetic.is_one(str(text)):
        if form is not None:
            raise ValueError(f"format: {form!r} is for files; leave it out with {synthetic.PREFIX}")
        return synthetic.read(str(text), node_gpus=node_gpus, capacity=capacity)
    path = Path(text)
    if form is not None and form not in FORMS:
        raise ValueError(f"format: {form!r} is not known; use one of {', '.join(FORMS)}")
    form = form or recognised(path)
    return swf.read(path, node_gpus, processors=processors) if form == "swf" else FORMS[form](path, node_gpus)


def recognised(path: Path) -> str:
    """The format of a file, from its name or its first line that is not empty.

    Raises:
        TableError: it is none that is known.
    """
    if path.suffix == own.PARQUET:
        return "heddle"
    line = first(path)
    cells = {cell.strip() for cell in line.split(",")}
    if line.startswith(";") or (len(line.split()) >= len(swf.FIELDS) and "," not in line):
        return "swf"
    for form, needs in _COLUMNS.items():
        if cells.issuperset(needs):
            return form
    known = "; ".join(f"{form} ({', '.join(needs)})" for form, needs in _COLUMNS.items())
    raise TableError(
        f"{path}:1: {line[:80]!r} begins no format that is known: {known}; swf (18 numbers a line); "
        "say which with its name, or write heddle's own columns over it"
    )
