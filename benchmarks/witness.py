"""Embedded heddle whose scheduler is overheard: ``python -m benchmarks.witness FILE 2x8xH100``.

It is ``heddle up --foreground --simulate 2x8xH100``, but for a line of JSON for each cycle before which something
happened or in which something starts: when it was, whose pods were all there for the first time (``heard``), who holds
nothing any more (``ended``) and what was started where (``bound``).
"""

import json
import sys
from pathlib import Path
from typing import Any, TextIO

from heddle.cli.__main__ import app
from heddle.control.scheduling import controller
from heddle.engine import Bind, Plan, State, schedule
from heddle.engine.work import Work


class Witness:
    """Stands where the controller calls the engine."""

    def __init__(self, out: TextIO) -> None:
        self.out = out
        self.known: set[str] = set()
        self.holding: set[str] = set()

    def schedule(self, state: State, now: float, *more: Any) -> Plan:
        """The engine's own, with a note of what it was asked and what it said."""
        holding = {name for name, work in state.works.items() if any(work.bound)}
        heard = sorted(name for name, work in state.works.items() if name not in self.known and _complete(work))
        plan = schedule(state, now, *more)
        bound = [(a.placement.workload, a.placement.node) for a in plan.actions if isinstance(a, Bind)]
        ended = sorted(self.holding - holding)
        if heard or ended or bound:
            self.out.write(json.dumps({"at": now, "heard": heard, "ended": ended, "bound": bound}) + "\n")
            self.out.flush()
        self.known.update(heard)
        self.holding = holding | {name for name, _ in bound}
        return plan


def _complete(work: Work) -> bool:
    """Whether enough of its pods exist for it to start."""
    waits = any(work.pending)
    return waits and all(pods >= least for pods, least in zip(work.pending, work.missing(), strict=True))


def notes(path: Path) -> list[dict[str, Any]]:
    """What a witness wrote."""
    return [json.loads(line) for line in path.read_text().splitlines()]


if __name__ == "__main__":
    with Path(sys.argv[1]).open("w") as file:
        controller.schedule = Witness(file).schedule  # type: ignore[attr-defined]
        app(["up", "--foreground", "--simulate", sys.argv[2]], prog_name="heddle")
