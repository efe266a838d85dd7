"""What a study of simulations found, in figures as people write them and in plain words."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Study = Mapping[str, Any]
Run = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of a run as the page shows it.

    Attributes:
        key: where it stands in the figures, with dots.
        title: its name when it stands alone.
        head: its name under the heading of its group.
        kind: how it is written: ``time``, ``share``, ``index``, ``count`` or ``hours``.
        best: ``least`` or ``most``; empty = neither is better.
        group: the heading that it shares with others in the table; empty = it is not in the table.
        parts: it is also known by size class and by queue.
    """

    key: str
    title: str
    head: str
    kind: str
    best: str
    group: str = ""
    parts: bool = False


FIGURES = (
    Figure("wait.mean", "Wait, mean", "mean", "time", "least", "Wait", parts=True),
    Figure("wait.p50", "Wait, median", "p50", "time", "least", "Wait", parts=True),
    Figure("wait.p95", "Wait, p95", "p95", "time", "least", "Wait", parts=True),
    Figure("wait.p99", "Wait, p99", "p99", "time", "least", "Wait", parts=True),
    Figure("wait.max", "Wait, longest", "max", "time", "least", parts=True),
    Figure("turnaround.mean", "Turnaround, mean", "mean", "time", "least", "Turnaround", parts=True),
    Figure("turnaround.p95", "Turnaround, p95", "p95", "time", "least", parts=True),
    Figure("slowdown.mean", "Slowdown, mean", "mean", "index", "least"),
    Figure("slowdown.p95", "Slowdown, p95", "p95", "index", "least"),
    Figure("makespan", "Makespan", "makespan", "time", "least", "Cluster"),
    Figure("utilisation", "Utilisation", "utilisation", "share", "most", "Cluster"),
    Figure("fairness", "Fairness", "fairness", "index", "most", "Cluster"),
    Figure("evictions", "Evictions", "evictions", "count", "least", "Lost work"),
    Figure("gpu_hours.lost", "GPU-hours lost", "GPU-hours", "hours", "least", "Lost work"),
)
"""In the order of the table and of the page's list."""


# -- numbers and words ---------------------------------------------------------------------------------


def text(value: float | None, kind: str) -> str:
    """A figure for people: ``1 h 23 min``, ``12.3 %``, ``1,234``. The page's script writes them alike."""
    if value is None or not math.isfinite(value):  # jobs without an end make sums without one
        return "–"
    return _WRITE[kind](value)


def _half_up(value: float) -> int:
    return math.floor(value + 0.5)


def _time(seconds: float) -> str:
    if seconds < 9.95:
        tenths = _half_up(seconds * 10) / 10
        return f"{tenths:.0f} s" if tenths == int(tenths) else f"{tenths} s"
    whole = _half_up(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 600:
        return _two(whole, 60, "min", "s")
    minutes = _half_up(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 24 * 60:
        return _two(minutes, 60, "h", "min")
    hours = _half_up(seconds / 3600)
    return _two(hours, 24, "d", "h") if hours < 2400 else f"{_half_up(seconds / 86400):,} d"


def _two(value: int, base: int, large: str, small: str) -> str:
    head, rest = divmod(value, base)
    return f"{head} {large} {rest} {small}" if rest else f"{head} {large}"


def amount(value: float) -> str:
    """A number that is no time: whole from a hundred on, with a place or two below."""
    if value >= 99.95 or value == int(value):
        return f"{_half_up(value):,}"
    return f"{value:.1f}" if value >= 0.995 else f"{value:.2g}"


_WRITE: dict[str, Callable[[float], str]] = {
    "time": _time,
    "share": lambda value: f"{_half_up(value * 1000) / 10:.1f} %",
    "index": lambda value: f"{value:.3f}" if value < 9.9995 else amount(value),
    "count": amount,
    "hours": amount,
}


def value_of(figures: Mapping[str, Any] | None, key: str) -> float | None:
    """A figure by its key; None = there is none."""
    found: Any = figures
    for step in key.split("."):
        found = found.get(step) if isinstance(found, Mapping) else None
    return found if isinstance(found, int | float) and math.isfinite(found) else None


def _and(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _many(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


# -- who is best ---------------------------------------------------------------------------------------


def compared(runs: Sequence[Run]) -> list[int]:
    """Which runs compete: those that are complete, and left no more jobs without a start than the others did.

    Who leaves jobs out would win by it: a job that never starts has no wait that could count.
    """
    whole = [at for at, run in enumerate(runs) if run["complete"]]
    least = min((_unstarted(runs[at]) for at in whole), default=0)
    return [at for at in whole if _unstarted(runs[at]) == least]


def best(runs: Sequence[Run], figure: Figure) -> set[int]:
    """Which runs are best in a figure. Empty = there is nothing to choose: fewer than two compete, or all are alike.

    What reads the same is the same: runs whose figures are written alike share the mark.
    """
    held = {at: value for at in compared(runs) if (value := value_of(runs[at]["figures"], figure.key)) is not None}
    if len(held) < 2 or not figure.best:
        return set()
    top = text((min if figure.best == "least" else max)(held.values()), figure.kind)
    found = {at for at, value in held.items() if text(value, figure.kind) == top}
    return set() if len(found) == len(held) else found


def _unstarted(run: Run) -> int:
    return int(run["figures"]["jobs"].get("waiting", 0))


def ended(run: Run) -> int:
    """How many jobs are over, in whatever way."""
    return sum(int(run["figures"]["jobs"].get(name, 0)) for name in ("done", "timed out", "cancelled"))


def _figure(key: str) -> Figure:
    return next(figure for figure in FIGURES if figure.key == key)


def headline(study: Study) -> tuple[str, list[str]]:
    """What came out, in plain words: a title, and a few sentences."""
    runs: Sequence[Run] = study["runs"]
    if not runs:
        return "No run", ["Nothing was simulated."]
    sentences: list[str] = []
    names = [str(run["label"]) for run in runs]
    rivals = compared(runs)
    if len(runs) == 1:
        title, sentences = _alone(runs[0])
    elif len(rivals) == 1:
        title = f"Only {names[rivals[0]]} can be judged"
        sentences = _alone(runs[rivals[0]])[1]
    elif not rivals:
        title = "No run is complete: nothing to compare yet"
    else:
        title, sentences = _versus(runs, rivals)
    sentences.extend(_unfinished(run, int(study["trace"]["jobs"])) for run in runs if not run["complete"])
    for at, run in enumerate(runs):
        if run["complete"] and (left := _unstarted(run)):
            never, them = ("never start", "them") if left != 1 else ("never starts", "it")
            aside = ", and no mark is given to it" if len(runs) > 1 and at not in rivals else ""
            sentences.append(
                f"With {run['label']}, {_many(left, 'job')} {never}: the waits of that run leave {them} out{aside}."
            )
    return title, sentences


def _alone(run: Run) -> tuple[str, list[str]]:
    """What a single run comes to."""
    figures, name = run["figures"], str(run["label"])
    wait = value_of(figures, "wait.mean")
    if wait is None:
        return f"{name}: no job started", []
    title = f"{name}: jobs wait {_time(wait)} on average"
    half, most = (text(value_of(figures, key), "time") for key in ("wait.p50", "wait.p95"))
    said = [f"Half of the jobs start within {half}, 95 % within {most}."]
    if (used := value_of(figures, "utilisation")) is not None:
        said.append(f"{text(used, 'share')} of the GPU time there was is in use.")
    if lost := value_of(figures, "gpu_hours.lost"):
        said.append(f"{amount(lost)} GPU-hours of work are lost.")
    return title, said


def _versus(runs: Sequence[Run], rivals: Sequence[int]) -> tuple[str, list[str]]:
    wait, used, lost = _figure("wait.mean"), _figure("utilisation"), _figure("gpu_hours.lost")
    winners = best(runs, wait)
    busiest = best(runs, used)

    def named(which: Iterable[int]) -> str:
        return _and([str(runs[at]["label"]) for at in sorted(which)])

    def span(figure: Figure, first: str, last: str) -> str:
        values = {at: value for at in rivals if (value := value_of(runs[at]["figures"], figure.key)) is not None}
        worst = (max if figure.best == "least" else min)(values, key=lambda at: values[at])
        at = min(best(runs, figure))
        low, high = (text(values[one], figure.kind) for one in (at, worst))
        return f"{low}{first}, against {high} {last} {named([worst])}"

    many = len(winners) > 1
    if not winners:
        waits = any(value_of(runs[at]["figures"], "wait.mean") is not None for at in rivals)
        title = "Jobs wait equally long in all runs" if waits else "No job started in any run"
    elif winners == busiest:
        title = f"{named(winners)} {'wait least and use' if many else 'waits least and uses'} most"
    else:
        title = f"{named(winners)} {'wait' if many else 'waits'} least"
    said = []
    if winners:
        said.append(f"A job waits {span(wait, ' on average', 'with')}.")
        tail = best(runs, _figure("wait.p95"))
        if tail and not tail & winners:
            at = min(tail)
            within = text(value_of(runs[at]["figures"], "wait.p95"), "time")
            said.append(f"The longest waits are shortest elsewhere: with {named(tail)} 95 % start within {within}.")
    said.extend(_by_cluster(runs, rivals, wait))
    if busiest:
        verb = "use" if len(busiest) > 1 else "uses"
        said.append(f"{named(busiest)} {verb} most of the GPUs: {span(used, '', 'with')}.")
    else:
        said.append("All use the GPUs equally well.")
    hours = [value_of(runs[at]["figures"], lost.key) or 0.0 for at in rivals]
    if not any(hours):
        said.append("No work is lost.")
    elif careful := best(runs, lost):
        verb = "lose" if len(careful) > 1 else "loses"
        said.append(f"{named(careful)} {verb} least work: {span(lost, ' GPU-hours', 'with')}.")
    else:
        said.append("All lose equally much work.")
    return title, said


def _by_cluster(runs: Sequence[Run], rivals: Sequence[int], figure: Figure) -> list[str]:
    """Who waits least on clusters of the same size: that the larger cluster waits less is no news."""
    sizes = sorted({int(runs[at]["cluster"]["gpus"]) for at in rivals})
    if len(sizes) < 2 or len({runs[at]["policy"] for at in rivals}) < 2:
        return []
    winners: dict[int, list[str]] = {}
    for gpus in sizes:
        alike = [runs[at] for at in rivals if int(runs[at]["cluster"]["gpus"]) == gpus]
        if found := best(alike, figure):
            winners[gpus] = list(dict.fromkeys(str(alike[at]["policy"]) for at in sorted(found)))
    ways = list(winners.values())
    if len(ways) == len(sizes) and all(way == ways[0] for way in ways):
        return [f"{_and(ways[0])} {'wait' if len(ways[0]) > 1 else 'waits'} least at every cluster size."]
    parts = [
        f"with {gpus:,} GPUs {_and(way)} {'wait' if len(way) > 1 else 'waits'} least" for gpus, way in winners.items()
    ]
    return [f"{', '.join(parts)}.".replace("w", "W", 1)] if parts else []


def _unfinished(run: Run, jobs: int) -> str:
    return (
        f"{run['label']} is incomplete: {ended(run):,} of {_many(jobs, 'job')} ended before it was stopped; "
        "its figures tell of those, and no mark is given to it."
    )
