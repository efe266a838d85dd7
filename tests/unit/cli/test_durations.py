"""Spans of time as people write them."""

import pytest

from heddle.cli.durations import duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("45s", 45), ("90m", 5400), ("2h", 7200), ("2h30m", 9000), ("1d12h", 129600), ("1d1s", 86401),
        ("0:30:00", 1800), ("12:00:00", 43200), ("1-12:00:00", 129600), ("2-00:00", 172800), ("1-12", 129600),
    ],
)  # fmt: skip
def test_spans_of_people_and_of_slurm(text: str, seconds: int) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "90", "h", "-1h", "1.5h", "0s", "0:00", "0:00:00", "0-0", "m30", "1h 30m", "30m1h", "1:2:3", "1-"]
)
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no span of time; write it as 90m"):
        duration(text)


@pytest.mark.parametrize("text", ["30", "30:00", "2:30"])
def test_what_slurm_reads_otherwise_than_most_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no span of time; write it as 90m"):
        duration(text)
