"""Random worlds for as long as one likes: ``make fuzz STEPS=1000000``; ``make fuzz KIND=crowded SEED=7`` replays one.

The same worlds run in the tests, a few of each kind; here seeds begin beyond those. A step is one scheduling cycle.
They cannot be counted where the engine is compiled: give a time then, ``ARGS="--seconds 600"``.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from test_against_reference import complete_for_one, impossible_is_true, plans_of_tiny_worlds
from test_eventful import eventful_world
from test_invariants import crowded_world, passing_world
from test_smallest_change import advice_holds

from heddle.engine import cycle
from heddle.engine.cycle import Cycle


def alone(seed: int) -> None:
    """A gang that fits is started."""
    assert complete_for_one(seed) is not False, "it fits, yet waits"


KINDS: dict[str, Callable[[int], object]] = {
    "crowded": crowded_world,
    "passing": passing_world,
    "eventful": eventful_world,
    "tiny": plans_of_tiny_worlds,
    "impossible": impossible_is_true,
    "alone": alone,
    "advice": advice_holds,
}


def main() -> int:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--steps", type=int, default=1_000_000, help="stop after so many cycles")
    ask.add_argument("--seconds", type=float, default=math.inf, help="or after so long")
    ask.add_argument("--kind", choices=sorted(KINDS), help="this kind of world only")
    ask.add_argument("--seed", type=int, help="this seed only, of the kind that is named")
    ask.add_argument("--first", type=int, default=100_000, help="the first seed; several runs side by side begin apart")
    told = ask.parse_args()
    if told.seed is not None and told.kind is None:
        ask.error("--seed needs --kind")
    if not cycle.__file__.endswith(".py") and told.seed is None and told.seconds == math.inf:
        ask.error("the engine is compiled, so that its cycles are not counted; give --seconds")
    steps = 0
    begin = Cycle.__init__

    def counted(self: Cycle, *args: object, **more: object) -> None:
        nonlocal steps
        steps += 1
        begin(self, *args, **more)  # type: ignore[arg-type]

    Cycle.__init__ = counted  # type: ignore[method-assign]
    worlds: Counter[str] = Counter()
    named: Counter[str] = Counter()
    cycles: Counter[str] = Counter()
    spent = {kind: 0.0 for kind in KINDS if told.kind in (None, kind)}
    started = shown = time.monotonic()
    for seed in count(told.first) if told.seed is None else (told.seed,):
        kind = min(spent, key=lambda kind: (spent[kind], kind))  # every kind gets as much time
        before, began = steps, time.monotonic()
        try:
            found = KINDS[kind](seed)
        except Exception:
            traceback.print_exc()
            print(f"\nfails after {steps} cycles; replay it with: make fuzz KIND={kind} SEED={seed}", file=sys.stderr)
            return 1
        if isinstance(found, Counter):
            named += found
        worlds[kind] += 1
        spent[kind] += time.monotonic() - began
        cycles[kind] += steps - before
        if time.monotonic() - shown > 60:
            shown = time.monotonic()
            print(f"{steps} cycles, {worlds.total()} worlds", flush=True)
        if steps >= told.steps or time.monotonic() - started > told.seconds:
            break
    made = ", ".join(f"{number} {kind} ({cycles[kind]})" for kind, number in sorted(worlds.items()))
    if named:
        print("changes named by explain: " + ", ".join(f"{number} {code}" for code, number in named.most_common()))
    print(f"{steps} cycles in {time.monotonic() - started:.0f} s, no fault; worlds (cycles): {made}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
