"""`heddle scenario` says what agrees, and fails when something necessary does not."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from heddle.cli.__main__ import app

OWN = Path(__file__).parents[2] / "scenarios" / "gang"


def run(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["scenario", *map(str, arguments)])
    return done.exit_code, done.output


@pytest.fixture
def wrong(tmp_path: Path) -> Path:
    data = json.loads(next(OWN.glob("*.json")).read_text())
    name = next(iter(data["expect"]))
    data["expect"][name]["running"] = 77
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps(data))
    return path


def test_a_folder_of_scenarios_that_agree() -> None:
    code, text = run(OWN)
    assert code == 0
    assert "agrees" in text
    assert f"necessary: {len(list(OWN.glob('*.json')))} agrees" in text


def test_a_necessary_difference_is_shown_and_fails(wrong: Path) -> None:
    code, text = run(wrong)
    assert code == 1
    assert "running: 77 expected" in text


def test_a_difference_of_policy_does_not_fail(wrong: Path) -> None:
    wrong.write_text(wrong.read_text().replace('"necessary"', '"policy"'))
    code, text = run(wrong)
    assert code == 0
    assert "policy: 1 differs" in text


def test_json_holds_all_results(wrong: Path) -> None:
    code, text = run(wrong, OWN, "--json")
    assert code == 1
    told = json.loads(text)
    assert told["summary"]["necessary"]["differs"] == 1
    first = told["scenarios"][0]
    assert (first["outcome"], first["strength"]) == ("differs", "necessary")
    assert first["differences"][0]["expected"] == 77


def test_what_is_no_scenario_is_said(tmp_path: Path) -> None:
    path = tmp_path / "odd.json"
    path.write_text('{"strength": "necessary", "nodes": []}')
    code, text = run(path)
    assert code == 1
    assert "'rounds' is missing" in text or "'queues' is missing" in text
    path.write_text("[]")
    assert run(path)[0] == 2
    assert run(tmp_path / "nothing.json")[0] == 2
    (tmp_path / "empty").mkdir()
    assert run(tmp_path / "empty")[0] == 2
