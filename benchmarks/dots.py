"""A row of dots for each thing measured, as SVG: ``python -m benchmarks.dots FIGURES.json OUT.svg``.

The figures are what ``python -m benchmarks.fgd --json`` or ``python -m benchmarks.policies --json`` prints, or
``python -m benchmarks.changes --dots`` writes. Dots are on one axis, logarithmic for times; nothing but this
file makes the plot.
"""

import argparse
import json
import math
import sys
from html import escape
from pathlib import Path
from typing import Any

Rows = dict[str, dict[str, float]]

WIDTH, LEFT, RIGHT, ROW, TOP = 820, 170, 34, 34, 64
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
"""Okabe and Ito's, told apart by those who see few colours too."""


def rows_of(figures: Any) -> tuple[str, Rows, bool]:
    """Title, rows of dots, and whether the axis is logarithmic."""
    if isinstance(figures, list):
        rows = {f"{row['trace']}, {row['nodes']} nodes": row["mean_wait_s"] for row in figures}
        return "Mean wait, seconds", rows, True
    if "rows" in figures:
        return figures["title"], figures["rows"], figures["log"]
    workloads = figures.get("workloads") or {"workload": figures["policies"]}
    rows = {
        name.removeprefix("openb_pod_list_"): {policy: found["mean_allocation"] for policy, found in policies.items()}
        for name, policies in workloads.items()
    }
    return "GPUs allocated when arrivals ask for all of them, per cent", rows, False


def ticks(low: float, high: float, *, log: bool) -> list[float]:
    """Round values on the axis from its first to its last."""
    if log:
        return [10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    step = 10 ** math.floor(math.log10((high - low) or 1)) / 2
    return [at * step for at in range(math.floor(low / step), math.ceil(high / step) + 1)]


def svg(title: str, rows: Rows, *, log: bool) -> str:
    """The plot."""
    values = [max(value, 1.0) if log else value for row in rows.values() for value in row.values()]
    marks = ticks(min(values), max(values), log=log)
    scale = math.log10 if log else float
    first, last = scale(marks[0]), scale(marks[-1])

    def x(value: float) -> float:
        return round(
            LEFT + (scale(max(value, 1.0) if log else value) - first) / (last - first) * (WIDTH - LEFT - RIGHT), 1
        )

    names = list(dict.fromkeys(name for row in rows.values() for name in row))

    def dot(name: str, at: float, y: float) -> str:
        colour = COLOURS[names.index(name) % len(COLOURS)]
        ring = f'r="6" fill="none" stroke="{colour}" stroke-width="2.5"'  # the last one hides nobody
        return f'<circle cx="{at}" cy="{y}" ' + (ring if name == names[-1] else f'r="5" fill="{colour}"')

    height = TOP + ROW * len(rows) + 30
    box = f'viewBox="0 0 {WIDTH} {height}"'
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {box} font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="12" y="22" font-size="15">{escape(title)}</text>',
    ]
    at = 12
    for name, colour in zip(names, COLOURS, strict=False):
        out.append(
            f'<circle cx="{at + 5}" cy="41" r="5" fill="{colour}"/><text x="{at + 15}" y="46">{escape(name)}</text>'
        )
        at += 36 + 8 * len(name)
    for mark in marks:
        out.append(f'<line x1="{x(mark)}" x2="{x(mark)}" y1="{TOP}" y2="{height - 26}" stroke="#ddd"/>')
        out.append(f'<text x="{x(mark)}" y="{height - 9}" text-anchor="middle" fill="#555">{mark:,.10g}</text>')
    for place, (label, row) in enumerate(rows.items()):
        y = TOP + ROW * place + ROW // 2
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}" stroke="#eee"/>')
        out.append(f'<text x="{LEFT - 12}" y="{y + 4}" text-anchor="end">{escape(label)}</text>')
        out += [
            f"{dot(name, x(value), y)}><title>{escape(f'{label}, {name}: {value:,g}')}</title></circle>"
            for name, value in row.items()
        ]
    return "\n".join((*out, "</svg>")) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    title, rows, log = rows_of(json.loads(options.figures.read_text()))
    options.out.write_text(svg(title, rows, log=log))
    return 0


if __name__ == "__main__":
    sys.exit(main())
