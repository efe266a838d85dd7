"""What the scheduler answers, in a terminal."""

from typing import Any

from rich.markup import escape

from heddle.cli.show import console


def waits(answer: dict[str, Any]) -> None:
    """Why something waits, what would help, and when it is expected to start."""
    if answer["admitted"]:
        return
    _list("why not now", answer["reasons"])
    if answer["changes"]:
        _list("what would help", answer["changes"])
    else:
        console.print("what would help: no single change that heddle tries")
    if answer["expected"]:
        console.print(f"when: {answer['expected']['message']}", markup=False)
        if answer["assumptions"]:
            console.print(
                f"  if {'; '.join(row['message'] for row in answer['assumptions'])}", style="dim", markup=False
            )


def cost(answer: dict[str, Any]) -> None:
    """What a workload cost others."""
    if answer.get("cost"):
        console.print("what it cost others:")
        for line in answer["cost"]:
            console.print(f"  - {line}", markup=False)


def _list(title: str, rows: list[dict[str, str]]) -> None:
    console.print(f"{title}:")
    for row in rows:
        console.print(f"  - {escape(row['message'])}  [dim]({row['code']})[/dim]")


def preview(found: dict[str, Any]) -> None:
    """What would come of an object, were it written now."""
    name = f"{found['kind'].lower()} {found['name']}"
    answer = found["answer"]
    if answer and answer["admitted"]:
        places = ", ".join(f"{pods} on {node}" for node, pods in found["nodes"].items())
        console.print(f"{name} would start now: {places}", markup=False)
        for row in answer["assumptions"]:
            console.print(f"  - {row['message']}", markup=False)
    elif answer:
        console.print(f"{name} would wait", markup=False)
        waits(answer)
    if found["started"]:
        console.print(f"would start because of it: {', '.join(found['started'])}", markup=False)
    for row in found["stopped"]:
        console.print(f"would lose: {row['message']}", markup=False)
    if not (answer or found["started"] or found["stopped"]):
        console.print(f"{name} would change nothing of what runs now", markup=False)
