"""What a job takes over from its caller."""

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from heddle.runtime.environment import expand
from heddle.sdk import caller


@given(st.text(alphabet="$()AB x", max_size=12))
@example("echo $$ $(A) $$(A) $$$(A) $A ${A}")
def test_what_was_typed_survives_the_expansion_byte_for_byte(typed: str) -> None:
    assert expand(caller.literal(typed), {"A": "expanded", "B": "$"}) == typed


def test_only_what_kubernetes_would_expand_is_escaped() -> None:
    assert caller.literal("echo $RANK ${WORLD_SIZE}") == "echo $RANK ${WORLD_SIZE}"


def test_the_callers_path_is_handed_on_unless_another_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/mine")
    monkeypatch.setenv("VIRTUAL_ENV", "/mine/venv")
    assert caller.environment(None) == {"PATH": "/mine", "VIRTUAL_ENV": "/mine/venv"}
    monkeypatch.delenv("VIRTUAL_ENV")
    assert caller.environment({"PATH": "/given", "X": "1"}) == {"PATH": "/given", "X": "1"}


def test_a_job_runs_where_its_caller_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert caller.directory("") == str(tmp_path)
    assert caller.directory("runs") == str(tmp_path / "runs")
    assert caller.directory("/elsewhere") == "/elsewhere"
