"""The page of a study, as text: what it says, what it marks, and that nothing in a trace can break it."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from heddle.engine import Device, NodeSpec
from heddle.simulator.findings import FIGURES, best, compared, headline, text
from heddle.simulator.jobs import Job
from heddle.simulator.measures import figures
from heddle.simulator.policies import policy
from heddle.simulator.report import POINTS, html, thin
from heddle.simulator.world import World

EVIL = "</script><b onload=x>\"'&amp;<!--\u2028"


def spread(mean: float) -> dict[str, float]:
    return {"mean": mean, "p50": mean / 2, "p95": mean * 3, "p99": mean * 5, "max": mean * 9}


def run(
    label: str, wait: float = 60, used: float = 0.5, lost: float = 0, gpus: int = 8, points: int = 3, **more: Any
) -> dict[str, Any]:
    tally = {"arrived": 10, "done": 10, "timed out": 0, "cancelled": 0, "running": 0, "waiting": 0}
    tally.update(more.get("jobs", {}))
    part = {"jobs": 10, "wait": spread(wait), "turnaround": spread(wait + 100)}
    return {
        "policy": more.get("policy", label),
        "title": "a title",
        "source": "",
        "label": label,
        "cluster": {"name": "c", "nodes": 1, "gpus": gpus},
        "complete": more.get("complete", True),
        "figures": {
            "jobs": tally,
            "wait": spread(wait),
            "turnaround": spread(wait + 100),
            "slowdown": spread(2),
            "by_size": {"1 GPU": part},
            "by_queue": {more.get("queue", "q"): {**part, "gpu_hours": 5}},
            "makespan": 4980,
            "utilisation": used,
            "gpu_hours": {"used": 5, "there": 10, "lost": lost},
            "evictions": 0,
            "fairness": 0.9,
            "cycles": 10,
            "course": {
                "columns": ["time", "gpus", "used", "wanted", "running", "waiting"],
                "rows": [
                    [at * 1234.567891, gpus, at * 7919 % 1000 / 8, at * 104729 % 5000, at % 97, at % 89]
                    for at in range(points)
                ],
                "broken": [[at * 16.5, 0.123456] for at in range(points // 16)],
            },
        },
    }  # fmt: skip


def study(*runs: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"trace": {"name": "t", "jobs": 10, "gpu_hours": 5, "seconds": 100}, "seed": 1, "runs": list(runs), **more}


@pytest.mark.parametrize(
    ("value", "kind", "said"),
    [
        (None, "time", "–"),
        (float("inf"), "hours", "–"),
        (0, "time", "0 s"),
        (0.25, "time", "0.3 s"),
        (9.97, "time", "10 s"),
        (59.7, "time", "1 min"),
        (200, "time", "3 min 20 s"),
        (1199, "time", "20 min"),
        (4980, "time", "1 h 23 min"),
        (86399, "time", "1 d"),
        (100_000, "time", "1 d 4 h"),
        (1234 * 86400, "time", "1,234 d"),
        (0.1234, "share", "12.3 %"),
        (0.98765, "index", "0.988"),
        (1234.4, "count", "1,234"),
        (12.34, "hours", "12.3"),
        (0.0123, "hours", "0.012"),
    ],
)
def test_numbers_are_written_for_people(value: float | None, kind: str, said: str) -> None:
    assert text(value, kind) == said


def marked(runs: list[dict[str, Any]], key: str) -> set[int]:
    return best(runs, next(figure for figure in FIGURES if figure.key == key))


def test_the_best_is_the_least_or_the_most_and_shared_by_those_that_read_alike() -> None:
    runs = [run("a", 600, 0.5), run("b", 60, 0.7), run("c", 60.2, 0.9)]
    assert marked(runs, "wait.mean") == {1, 2}
    assert marked(runs, "utilisation") == {2}
    assert marked(runs, "evictions") == set()  # all alike
    assert marked(runs[:1], "wait.mean") == set()  # nobody to compare with


def test_who_is_incomplete_or_leaves_jobs_out_gets_no_mark() -> None:
    stuck, cut = run("stuck", 1, jobs={"waiting": 2, "done": 8}), run("cut", 1, complete=False)
    runs = [run("a", 600), run("b", 60), stuck, cut]
    assert compared(runs) == [0, 1]
    assert marked(runs, "wait.mean") == {1}
    page = html(study(*runs))
    assert page.count('<span class="flag">incomplete</span>') == 1
    line = re.search(r"<tr><th scope=.row.[^\n]*?>b</span>.*?</tr>", page)
    assert line is not None
    assert 'class="num edge best" data-v="60"' in line[0]


def test_the_headline_names_who_waits_least_uses_most_loses_least() -> None:
    title, said = headline(study(run("a", 600, 0.5, 9), run("b", 4980, 0.7, 3)))
    assert title == "a waits least"
    assert said == [
        "A job waits 10 min on average, against 1 h 23 min with b.",
        "b uses most of the GPUs: 70.0 %, against 50.0 % with a.",
        "b loses least work: 3 GPU-hours, against 9 with a."
    ]  # fmt: skip
    assert headline(study(run("a", 600, 0.5), run("b", 4980, 0.4)))[0] == "a waits least and uses most"


def test_the_headline_tells_ties() -> None:
    title, said = headline(study(run("a", 60), run("b", 60), run("c", 99)))
    assert title == "a and b wait least"
    assert said[1:] == ["All use the GPUs equally well.", "No work is lost."]
    assert headline(study(run("a"), run("b")))[0] == "Jobs wait equally long in all runs"


def test_the_headline_tells_what_is_incomplete_and_what_never_started() -> None:
    cut = run("cut", 1, complete=False, jobs={"arrived": 6, "done": 4, "running": 1, "waiting": 1})
    title, said = headline(study(run("a", 60), run("b", 600), cut))
    assert title == "a waits least"
    assert said[-1].startswith("cut is incomplete: 4 of 10 jobs ended before it was stopped")
    assert headline(study(cut, cut))[0] == "No run is complete: nothing to compare yet"
    assert headline(study(run("a"), cut))[0] == "Only a can be judged"
    stuck = run("stuck", 1, jobs={"done": 9, "waiting": 1})
    assert headline(study(run("a", 60), run("b", 70), stuck))[1][-1] == (
        "With stuck, 1 job never starts: the waits of that run leave it out, and no mark is given to it."
    )


def test_the_headline_compares_within_a_cluster_size_too() -> None:
    small = [run("a8", 600, policy="a"), run("b8", 900, policy="b")]
    assert "a waits least at every cluster size." in headline(
        study(*small, run("a16", 60, gpus=16, policy="a"), run("b16", 90, gpus=16, policy="b"))
    )[1]  # fmt: skip
    assert "With 8 GPUs a waits least, with 16 GPUs b waits least." in headline(
        study(*small, run("a16", 60, gpus=16, policy="a"), run("b16", 30, gpus=16, policy="b"))
    )[1]  # fmt: skip


def test_one_run_and_none_make_a_page_too() -> None:
    assert headline(study(run("a", 600)))[0] == "a: jobs wait 10 min on average"
    assert "Nothing was simulated." in html(study())
    empty = World([NodeSpec("n", {}, (Device("g", 0),))], [], policy("fifo"))
    empty.run()
    assert "no job started" in html(study({**run("a"), "figures": figures(empty)}))


class Reader(HTMLParser):
    """The elements of a page, and what stands in them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.data: dict[str, list[str]] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags:
            self.data.setdefault(self.tags[-1][0], []).append(data)


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    return reader


def test_names_from_a_trace_cannot_break_the_page() -> None:
    hostile = run(EVIL, queue=EVIL, policy=EVIL)
    hostile.update(title=EVIL, source=EVIL)
    answers = [{"question": EVIL, "policy": EVIL, "answer": EVIL, "detail": EVIL}]
    given = study(hostile, run("b", 90), answers=answers)
    given["trace"]["name"] = EVIL
    reader = read(html(given))
    assert [tag for tag, _ in reader.tags if tag == "b"] == []
    assert [tag for tag, _ in reader.tags].count("script") == 2
    data = json.loads(next(said for said in reader.data["script"] if said.lstrip().startswith("{")))
    assert data["queues"] == [EVIL, "q"]
    assert data["runs"][0]["label"] == EVIL
    assert EVIL in reader.data["h3"]


def test_the_page_needs_nothing_beside_itself() -> None:
    page = html(study(run("a"), run("b", 90)))
    assert not re.search(r"https?:|//[a-z]+\.|@import|url\(|fetch\(|XMLHttpRequest|import\(", page)
    loads = [(tag, name) for tag, has in read(page).tags for name in ("src", "href", "srcset", "data") if has.get(name)]
    assert loads == [("link", "href")]  # an empty icon, so that browsers ask for none
    assert "default-src 'none'" in page


def test_every_table_names_its_rows_and_columns() -> None:
    tags = read(html(study(run("a"), run("b", 90)))).tags
    assert all(has.get("scope") in {"row", "col", "colgroup"} for tag, has in tags if tag == "th")


def test_twelve_runs_with_full_curves_stay_small() -> None:
    page = html(study(*(run(f"run {at}", 60 + at, points=2001) for at in range(12))))
    assert len(page.encode()) < 1_500_000
    assert len(page) < 50 * POINTS + 200_000


def test_thinning_keeps_ends_peaks_and_order() -> None:
    rows = [[at, at % 50, 0] for at in range(5000)]
    rows[3333][2] = 99
    kept = thin(rows, [1, 2], 500)
    assert len(kept) <= 500
    assert kept == sorted(kept)
    assert {0, 3333, 4999} <= set(kept)
    assert thin(rows[:10], [1], 500) == list(range(10))


def test_figures_of_a_world_fit() -> None:
    nodes = [NodeSpec("n", {"cpu": 1}, tuple(Device(f"g{d}", d) for d in range(4)))]
    world = World(nodes, [Job(f"j{at}", at * 10, 100, gpu=1000, tasks=1 + at % 4) for at in range(20)], policy("easy"))
    world.run()
    found = figures(world)
    page = html(study({**run("easy"), "figures": found}))
    assert text(found["wait"]["mean"], "time") in page
    assert text(found["utilisation"], "share") in page
    assert html(study({**run("easy"), "figures": found})) == page
