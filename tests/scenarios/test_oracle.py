"""Scenario tables judge the scheduler: heddle's own run everywhere, the outside oracle where it lies
beside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from heddle.engine.scenario import run_scenario

OWN = Path(__file__).parent
ORACLE = OWN.parents[2] / "shared" / "scenarios"

NOT_YET: dict[str, str] = {}
"""Necessary scenarios of the oracle with which the engine does not agree yet, by name, and why."""


def load(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*/*.json"))]


def differences(scenario: dict[str, Any]) -> str:
    result = run_scenario(scenario)
    return result.fault or "; ".join(
        f"{d.subject} {d.what}: expected {d.expected}, was {d.actual}" for d in result.differences
    )


@pytest.mark.parametrize("scenario", load(OWN), ids=lambda scenario: scenario["name"])
def test_own_scenario_ends_as_its_rule_demands(scenario: dict[str, Any]) -> None:
    assert not differences(scenario)


def test_every_rule_has_a_scenario() -> None:
    rules = {rule for scenario in load(OWN) for rule in scenario.get("rules", ())}
    assert rules >= {
        "no-idle",
        "borrow-at-weight-zero",
        "priority",
        "fair-share",
        "fixed-in-quota",
        "no-needless-eviction",
    }
    told = " ".join(str(scenario.get("why")) for scenario in load(OWN))
    assert [number for number in range(1, 8) if f"rule {number}" not in told] == []


def test_the_outside_oracle_agrees_on_all_that_is_necessary() -> None:
    if not ORACLE.is_dir():
        pytest.skip("the outside scenario oracle is not beside this checkout")
    wrong: dict[str, str] = {}
    for scenario in load(ORACLE):
        if scenario["strength"] == "necessary" and (why := differences(scenario)):
            wrong[scenario["name"]] = why
    unlisted = {name: why for name, why in wrong.items() if name not in NOT_YET}
    assert not unlisted, "disagrees with the oracle"
    assert set(NOT_YET) <= set(wrong), "agrees now: take it off the list NOT_YET"
