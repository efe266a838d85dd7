"""The page of a study in a real browser: what people click, see and print."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import pytest

from heddle.engine import Device, NodeSpec
from heddle.simulator.jobs import Job
from heddle.simulator.measures import figures
from heddle.simulator.policies import policy
from heddle.simulator.report import html
from heddle.simulator.world import World

EVIL = '</script><b id="broken">"&'


def jobs() -> list[Job]:
    return [
        Job(f"j{at:03}", at * 40, 300 + at * 337 % 4000, gpu=1000, tasks=1 + at * 5 % 7, queue=["prod", EVIL][at % 2])
        for at in range(120)
    ]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs: list[dict[str, Any]] = []
    for count in (2, 3):
        nodes = [NodeSpec(f"n{at}", {"cpu": 1}, tuple(Device(f"g{d}", d) for d in range(8))) for at in range(count)]
        for name in ("fifo", "easy", "sjf"):
            world = World(nodes, jobs(), policy(name))
            world.run()
            runs.append(
                {
                    "policy": name,
                    "title": policy(name).title,
                    "source": policy(name).source,
                    "cluster": {"name": f"{count}x8", "nodes": count, "gpus": count * 8},
                    "label": f"{name}, {count} nodes",
                    "complete": True,
                    "figures": figures(world),
                }
            )
    trace = {"name": EVIL, "jobs": 120, "gpu_hours": 250.0, "seconds": 4800.0}
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(html({"trace": trace, "seed": 1, "runs": runs}), "utf-8")
    return path


async def test_it_draws_everything_and_loads_nothing(page: Any, path: Path) -> None:
    await page.open(path)
    assert page.faults == []
    assert [url for url in page.requests if url not in (path.as_uri(), "data:,")] == []
    drawn = [await page.count(f"#{name} svg") for name in ("dots", "growth", "gpus", "waiting", "broken")]
    assert drawn == [1, 1, 6, 1, 1]
    assert await page.js("document.getElementById('broken').tagName") == "DIV"  # and not the <b> of a queue's name
    assert await page.js("document.body.innerText.includes('</script><b id=')")
    assert not re.search("NaN|undefined|Infinity", await page.js("document.querySelector('main').innerHTML"))


async def test_a_click_on_a_heading_sorts_and_another_turns_it(page: Any, path: Path) -> None:
    await page.open(path)
    column = "[...document.querySelectorAll('#figures tbody tr')].map(r => Number(r.cells[3].dataset.v))"
    for order, reverse in (("ascending", False), ("descending", True)):
        box = await page.box("#figures thead tr:nth-child(2) th:nth-child(4) button")
        await page.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        values = await page.js(column)
        assert values == sorted(values, reverse=reverse)
        assert await page.js("document.querySelector('#figures th:nth-child(4)[aria-sort]').ariaSort") == order


async def test_a_figure_is_chosen_by_name_of_parts_and_on_a_log_scale(page: Any, path: Path) -> None:
    await page.open(path)
    assert "Wait, p95" in await page.text("dots-said")
    await page.choose("part", "by_queue")
    assert "by queue" in await page.text("dots-said")
    assert await page.count("#dots .dot") == 12
    box = await page.box("#log")
    await page.click(box["x"] + 6, box["y"] + 6)
    assert "Logarithmic" in await page.text("dots-said")
    await page.choose("figure", "utilisation")
    assert await page.disabled("part")
    assert await page.disabled("log")
    assert "Utilisation. More is better." in await page.text("dots-said")
    assert await page.text("growth-title") == "Utilisation, over the number of GPUs"
    assert page.faults == []


async def test_a_run_can_be_left_out(page: Any, path: Path) -> None:
    await page.open(path)
    box = await page.box("#legend button:nth-child(2)")
    await page.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert await page.js("document.querySelectorAll('#gpus svg').length") == 5
    assert await page.js("document.querySelector('#legend button:nth-child(2)').ariaPressed") == "false"


async def test_hover_tells_values_drag_zooms_and_a_double_click_resets(page: Any, path: Path) -> None:
    await page.open(path)
    box = await page.box("#gpus svg")
    x, y = box["x"], box["y"] + box["height"] / 2
    await page.mouse("mouseMoved", x + box["width"] / 2, y)
    told = await page.text("tip")
    assert re.search(r"after \d+ .*in use\s+\d.*there\s+16.*waited for\s+\d", told, re.DOTALL)
    assert await page.js("document.querySelectorAll('.cursor[visibility=visible]').length") == 8  # all charts show it
    axis = "document.querySelector('#waiting svg').textContent"
    before = await page.js(axis)
    await page.mouse("mousePressed", x + box["width"] * 0.5, y, button="left", buttons=1, clickCount=1)
    await page.mouse("mouseMoved", x + box["width"] * 0.6, y, button="left", buttons=1)
    await page.mouse("mouseReleased", x + box["width"] * 0.6, y, button="left", clickCount=1)
    assert await page.js(axis) != before
    assert not await page.disabled("reset")
    for times in (1, 2):
        await page.click(x + box["width"] / 2, y, times)
    assert await page.js(axis) == before
    assert await page.disabled("reset")
    assert page.faults == []


async def test_charts_can_be_read_and_zoomed_by_keys(page: Any, path: Path) -> None:
    await page.open(path)
    await page.js("document.querySelector('#waiting svg').focus()")
    await page.key("ArrowRight")
    said = await page.js("document.getElementById('said').textContent")
    assert re.match(r"after .*: fifo, 2 nodes \d+, easy, 2 nodes", said)
    await page.key("+")
    assert not await page.disabled("reset")
    assert await page.js("document.activeElement.closest('#waiting') !== null")
    await page.key("0")
    assert await page.disabled("reset")


async def test_all_runs_share_one_chart_when_asked(page: Any, path: Path) -> None:
    await page.open(path)
    await page.choose("layout", "over")
    assert await page.count("#gpus svg") == 1
    assert await page.count("#gpus svg .curve") == 12
    assert await page.count("#gpus svg .there") == 2  # one for each size of cluster
    box = await page.box("#gpus svg")
    await page.mouse("mouseMoved", box["x"] + box["width"] / 2, box["y"] + 60)
    assert re.search(r"in use\s+waited for\s+fifo, 2 nodes\s+\d+\s+\d+", await page.text("tip"))
    assert page.faults == []


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
async def test_the_page_is_never_wider_than_the_window(page: Any, path: Path, width: int) -> None:
    await page.open(path, width=width)
    assert await page.js("document.documentElement.scrollWidth") <= width


async def test_it_follows_the_dark_mode_and_prints_light(page: Any, path: Path) -> None:
    await page.open(path)
    paper = "getComputedStyle(document.body).backgroundColor"
    await page.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    assert await page.js(paper) == "rgb(20, 23, 26)"
    await page.send(
        "Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}]
    )
    assert await page.js(paper) == "rgb(255, 255, 255)"
    assert await page.js("getComputedStyle(document.querySelector('.controls')).display") == "none"


async def test_it_prints_each_section_on_a_page_of_its_own(page: Any, path: Path) -> None:
    await page.open(path)
    told = await page.send("Page.printToPDF", preferCSSPageSize=True, printBackground=True)
    pdf = base64.b64decode(told["data"])
    assert 5 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 9
    assert page.faults == []


async def test_every_control_has_a_name(page: Any, path: Path) -> None:
    await page.open(path)
    tree = await page.send("Accessibility.getFullAXTree")
    roles = {"button", "combobox", "checkbox", "application", "image", "region", "columnheader", "rowheader"}
    nodes = [node for node in tree["nodes"] if node.get("role", {}).get("value") in roles and not node["ignored"]]
    assert len(nodes) > 30
    assert [node["role"]["value"] for node in nodes if not node.get("name", {}).get("value")] == []
