"""What the terminal shows of the scheduler's answers."""

import pytest

from heddle.cli.answers import waits


def test_brackets_in_a_reason_are_shown_and_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    reason = {"code": "NoNodeMatches", "message": "labels In [a, /b] [/c]"}
    waits({"admitted": False, "reasons": [reason], "changes": [], "expected": None})
    assert "labels In [a, /b] [/c]  (NoNodeMatches)" in capsys.readouterr().out
