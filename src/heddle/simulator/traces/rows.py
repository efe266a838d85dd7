"""From the rows of a file to a trace: what is wrong with a job is told with its line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from heddle.simulator.jobs import Job, Trace
from heddle.simulator.tables import Row, TableError


def trace(name: str, rows: Iterable[Row], make: Callable[[Row], Job | str]) -> Trace:
    """A trace of what ``make`` makes of each row: a job, or the reason why the row is none.

    Raises:
        TableError: a row is broken, or names a job that an earlier one named.
    """
    jobs: list[Job] = []
    lines = dict[str, int]()
    left_out = Counter[str]()
    for row in rows:
        try:
            made = make(row)
        except TableError:
            raise
        except ValueError as error:
            raise row.fault(str(error)) from error
        if isinstance(made, str):
            left_out[made] += 1
            continue
        before = lines.setdefault(made.name, row.line)
        if before != row.line:
            raise row.fault(f"the job of line {before} is called {made.name!r} too; give each its own name")
        jobs.append(made)
    return Trace.of(name, jobs, left_out)
