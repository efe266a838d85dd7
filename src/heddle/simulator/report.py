"""A study of simulations as one HTML page that needs nothing beside itself: to look at, to send, to print.

What can be said without drawing - the headline, the tables, what the figures mean - is plain HTML made here; the page's
script (``page/report.js``) draws the plots from the same figures, which travel in the page as JSON.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from string import Template
from typing import Any

from heddle.simulator.findings import FIGURES, Figure, Run, Study, best, ended, headline, text, value_of
from heddle.simulator.measures import SIZES

POINTS = 12_000
"""Points of curves in a page, all runs together; beyond that curves are thinned, keeping their peaks."""
QUEUES = 24
"""Queues that a page shows; the ones with most jobs, where there are more."""


def html(study: Study) -> str:
    """The page.

    Args:
        study: what ``heddle simulate --json`` prints: ``trace`` (``name``, ``jobs``, ``gpu_hours``, ``seconds``),
            ``seed``, ``runs`` (``policy``, ``title``, ``source``, ``cluster``, ``label``, ``complete`` and ``figures``
            as of :func:`heddle.simulator.measures.figures`) and, where questions were asked, ``answers``.
    """
    title, sentences = headline(study)
    page = resources.files("heddle.simulator") / "page"
    return Template((page / "report.html").read_text("utf-8")).substitute(
        title=escape(title),
        about=_about(study),
        findings="".join(f"<p>{escape(sentence)}</p>" for sentence in sentences),
        answers=_answers(study.get("answers") or ()),
        table=_table(study["runs"]),
        parts=_parts(study["runs"], "by_size", "size class") + _parts(study["runs"], "by_queue", "queue"),
        policies=_policies(study["runs"]),
        css=(page / "report.css").read_text("utf-8"),
        js=(page / "report.js").read_text("utf-8"),
        data=_script(_data(study)),
    )


# -- HTML ----------------------------------------------------------------------------------------------


def _about(study: Study) -> str:
    trace = study["trace"]
    facts = [
        ("Trace", str(trace["name"])),
        ("Jobs", f"{int(trace['jobs']):,}"),
        ("GPU-hours asked", text(trace["gpu_hours"], "hours")),
        ("Span", text(trace["seconds"], "time")),
        ("Runs", f"{len(study['runs'])}"),
    ]
    if study.get("seed") is not None:
        facts.append(("Seed", str(study["seed"])))
    return "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(said)}</dd></div>" for name, said in facts)


def _answers(answers: Sequence[Mapping[str, Any]]) -> str:
    if not answers:
        return ""
    cards = "".join(
        f'<article class="answer"><h3>{escape(str(one["question"]))}</h3>'
        f'<p class="big">{escape(str(one["answer"]))}</p>'
        f"<p>{escape(' · '.join(str(one[key]) for key in ('policy', 'detail') if one.get(key)))}</p></article>"
        for one in answers
    )
    heading = '<h2 id="h-answers">Answers</h2>'
    return f'<section aria-labelledby="h-answers">{heading}<div class="cards">{cards}</div></section>'


def _table(runs: Sequence[Run]) -> str:
    shown = [figure for figure in FIGURES if figure.group]
    groups: dict[str, int] = {}
    for figure in shown:
        groups[figure.group] = groups.get(figure.group, 0) + 1
    above = "".join(f'<th scope="colgroup" class="edge" colspan="{span}">{name}</th>' for name, span in groups.items())
    first = {next(figure.key for figure in shown if figure.group == name) for name in groups}

    def edge(key: str) -> str:
        return " edge" if key in first else ""

    heads = _head("Run", "Run", "") + _head("GPUs", "GPUs", "num") + _head("Jobs ended", "ended", "num edge")
    heads += "".join(_head(figure.title, figure.head, f"num{edge(figure.key)}") for figure in shown)
    marks = {figure.key: best(runs, figure) for figure in shown}
    lines = []
    for at, run in enumerate(runs):
        figures, over = run["figures"], ended(run)
        flag = "" if run["complete"] else ' <span class="flag">incomplete</span>'
        name = f'<span class="name"><i class="key" data-run="{at}"></i>{escape(str(run["label"]))}</span>'
        cells = [
            f'<th scope="row" data-v="{at}">{name}{flag}</th>',
            f'<td class="num" data-v="{int(run["cluster"]["gpus"])}">{int(run["cluster"]["gpus"]):,}</td>',
            f'<td class="num edge" data-v="{over}">{over:,}</td>',
        ]
        for figure in shown:
            value = value_of(figures, figure.key)
            mark = at in marks[figure.key]
            star = '<span class="star" aria-hidden="true">★</span><span class="vh">best: </span>' if mark else ""
            cells.append(
                f'<td class="num{edge(figure.key)}{" best" if mark else ""}" data-v="{"" if value is None else value}">'
                f"{star}{text(value, figure.kind)}</td>"
            )
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return (
        '<table id="figures"><caption class="vh">Key figures of each run; a click on a heading sorts</caption><thead>'
        f'<tr class="groups"><td></td><td></td><th scope="colgroup" class="edge">Jobs</th>{above}</tr>'
        f"<tr>{heads}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table>"
    )


def _head(title: str, head: str, css: str) -> str:
    return (
        f'<th scope="col" class="{css}" aria-sort="none"><button type="button" class="sort" '
        f'title="Sort by {escape(title)}" aria-label="{escape(title)}: sort">{escape(head)}</button></th>'
    )


def _parts(runs: Sequence[Run], part: str, noun: str) -> str:
    names = _names(runs, part)
    if not names:
        return ""
    heads = "".join(f'<th scope="col" class="num wrap">{escape(str(run["label"]))}</th>' for run in runs)
    lines = []
    for name in names:
        held = [(run["figures"].get(part) or {}).get(name) for run in runs]
        jobs = max(int((one or {}).get("jobs", 0)) for one in held)
        cells = "".join(f'<td class="num">{text(value_of(one, "wait.p95"), "time")}</td>' for one in held)
        lines.append(f'<tr><th scope="row" class="wrap">{escape(name)}</th><td class="num">{jobs:,}</td>{cells}</tr>')
    return (
        f'<div class="part"><h3>Wait, p95, by {noun}</h3><div class="scroll" tabindex="0" role="region" '
        f'aria-label="Wait, p95, by {noun}"><table><thead><tr><th scope="col">{noun.capitalize()}</th>'
        f'<th scope="col" class="num">Jobs</th>{heads}</tr></thead><tbody>{"".join(lines)}</tbody></table></div></div>'
    )


def _names(runs: Sequence[Run], part: str) -> list[str]:
    """Size classes as they come; queues by their jobs, the most first."""
    jobs: dict[str, int] = {}
    for run in runs:
        for name, held in (run["figures"].get(part) or {}).items():
            jobs[name] = max(jobs.get(name, 0), int(held.get("jobs", 0)))
    if part == "by_size":
        order = [name for _, name in SIZES]
        return sorted(jobs, key=lambda name: order.index(name) if name in order else len(order))
    return sorted(jobs, key=lambda name: (-jobs[name], name))[:QUEUES]


def _policies(runs: Sequence[Run]) -> str:
    seen = {run["policy"]: run for run in runs}
    items = []
    for name, run in seen.items():
        source = f" <cite>{escape(str(run['source']))}</cite>" if run.get("source") else ""
        items.append(f"<div><dt>{escape(str(name))}</dt><dd>{escape(str(run['title']))}.{source}</dd></div>")
    return "".join(items)


# -- data of the plots ---------------------------------------------------------------------------------


def _script(data: Any) -> str:
    """JSON that may stand inside a ``script`` element: nothing in it ends the element or starts a comment."""
    said = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    for sign in "<>&\u2028\u2029":
        said = said.replace(sign, f"\\u{ord(sign):04x}")
    return said


def _data(study: Study) -> dict[str, Any]:
    runs: Sequence[Run] = study["runs"]
    most = max(200, POINTS // max(1, len(runs)))
    queues = _names(runs, "by_queue")
    total = {name for run in runs for name in run["figures"].get("by_queue") or {}}
    return {
        "figures": [
            {"key": f.key, "title": f.title, "kind": f.kind, "best": f.best, "parts": f.parts} for f in FIGURES
        ],
        "sizes": _names(runs, "by_size"),
        "queues": queues,
        "left_out": len(total) - len(queues),
        "runs": [
            {
                "label": str(run["label"]),
                "policy": str(run["policy"]),
                "gpus": run["cluster"]["gpus"],
                "complete": bool(run["complete"]),
                "values": _values(run["figures"], FIGURES),
                "by_size": _part_values(run["figures"].get("by_size")),
                "by_queue": _part_values(run["figures"].get("by_queue"), queues),
                **_curves(run["figures"].get("course") or {}, most),
            }
            for run in runs
        ],
    }


def _values(figures: Mapping[str, Any], wanted: Iterable[Figure]) -> dict[str, float | None]:
    return {figure.key: value_of(figures, figure.key) for figure in wanted}


def _part_values(parts: Mapping[str, Any] | None, names: Iterable[str] | None = None) -> dict[str, Any]:
    chosen = [name for name in (parts or {}) if names is None or name in names]
    inner = [figure for figure in FIGURES if figure.parts]
    return {name: _values((parts or {})[name], inner) for name in chosen}


def _curves(course: Mapping[str, Any], most: int) -> dict[str, Any]:
    """The columns of a course, thinned, as lists: shorter than rows, and ready to draw."""
    columns: Sequence[str] = course.get("columns") or ()
    rows: Sequence[Sequence[float]] = course.get("rows") or ()
    watched = [columns.index(name) for name in ("used", "wanted", "waiting") if name in columns]
    kept = [rows[at] for at in thin(rows, watched, most)]
    broken: Sequence[Sequence[float]] = course.get("broken") or ()
    spots = [broken[at] for at in thin(broken, [1], max(100, most // 4))]
    return {
        "curves": {name: [_short(row[at]) for row in kept] for at, name in enumerate(columns)},
        "broken": {"time": [_short(spot[0]) for spot in spots], "part": [round(spot[1], 4) for spot in spots]},
    }


def thin(rows: Sequence[Sequence[float]], columns: Sequence[int], most: int) -> list[int]:
    """Which rows to draw: at most so many; of each stretch its first row and the lows and highs of some columns."""
    if len(rows) <= most:
        return list(range(len(rows)))
    stretch = math.ceil(len(rows) * (1 + 2 * len(columns)) / max(1, most - 1))
    kept = {len(rows) - 1}
    for begin in range(0, len(rows), stretch):
        part = range(begin, min(begin + stretch, len(rows)))
        kept.add(begin)
        for column in columns:
            kept.add(min(part, key=lambda at: rows[at][column]))
            kept.add(max(part, key=lambda at: rows[at][column]))
    return sorted(kept)


def _short(value: float) -> float:
    """Two places are more than a plot shows."""
    found = round(value, 2)
    return int(found) if found == int(found) else found
