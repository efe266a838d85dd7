"""`heddle scenario`: the engine judged by scenario tables."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from heddle.cli.errors import FAILED, USAGE, fail
from heddle.cli.show import console, table
from heddle.engine.scenario import Outcome, Result, run_scenario


def scenario(
    files: Annotated[
        list[Path], typer.Argument(help="Scenario files, or folders of them (*.json).", metavar="FILE...")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="All results as one JSON document.")] = False,
) -> None:
    """Run scenario tables through the engine, and compare what becomes of them (docs/scenarios.md).

    Exits with 0 when every necessary scenario agrees.
    """
    results = [run_scenario(_read(path)) for path in _found(files)]
    failed = any(result.necessary and result.outcome is not Outcome.AGREES for result in results)
    if as_json:
        print(json.dumps({"scenarios": [_plain(result) for result in results], "summary": _summary(results)}, indent=1))
    else:
        _print(results)
    raise SystemExit(FAILED if failed else 0)


def _found(paths: list[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(path.rglob("*.json"))
            if not inside:
                raise fail(f"{path}: there is no *.json in this folder", USAGE)
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise fail(f"{path}: there is no such file or folder", USAGE)
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_bytes())
        if not isinstance(data, dict):
            raise ValueError("it is no JSON object")
        run = {"name": path.stem, **data}
    except OSError as error:
        raise fail(f"{path}: {error.strerror}", USAGE) from None
    except ValueError as error:
        raise fail(f"{path}: no scenario: {error}", USAGE) from None
    return run


def _plain(result: Result) -> dict[str, Any]:
    return {
        "name": result.name,
        "strength": "necessary" if result.necessary else "policy",
        "outcome": str(result.outcome),
        "fault": result.fault,
        "differences": [
            {"subject": d.subject, "what": d.what, "expected": d.expected, "actual": d.actual}
            for d in result.differences
        ],
    }


def _summary(results: list[Result]) -> dict[str, dict[str, int]]:
    return {
        strength: {
            str(outcome): sum(r.necessary is necessary and r.outcome is outcome for r in results) for outcome in Outcome
        }
        for strength, necessary in (("necessary", True), ("policy", False))
    }


def _print(results: list[Result]) -> None:
    rows = []
    for result in results:
        strength = "necessary" if result.necessary else "policy"
        if result.outcome is Outcome.AGREES:
            rows.append((result.name, strength, "agrees", ""))
        elif result.fault:
            rows.append((result.name, strength, str(result.outcome), result.fault))
        rows += [
            (result.name, strength, "differs", f"{d.subject} {d.what}: {d.expected} expected, {d.actual}")
            for d in result.differences
        ]
    table(("SCENARIO", "STRENGTH", "OUTCOME", "WHAT"), rows)
    for strength, counts in _summary(results).items():
        told = ", ".join(f"{number} {outcome}" for outcome, number in counts.items() if number)
        console.print(f"{strength}: {told or 'none'}", markup=False)
