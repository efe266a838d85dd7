"""Spans of time as people write them."""

import re

_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_WORDS = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_SLURM = re.compile(r"(\d+)-(\d+)(?::(\d\d)(?::(\d\d))?)?|()(\d+):(\d\d):(\d\d)")


def duration(text: str) -> int:
    """Seconds of a span: 90m, 2h30m, 45s, 1d12h; or as Slurm writes it, days-hours[:minutes[:seconds]] or
    hours:minutes:seconds.

    Refused is what people read in two ways: a plain number is minutes to Slurm and seconds to Kubernetes, and 1:30 is
    minutes and seconds to Slurm and hours and minutes to most others.

    Raises:
        ValueError: it is none, or nothing.
    """
    seconds = 0
    if text and (found := _WORDS.fullmatch(text)):
        seconds = sum(int(number or 0) * unit for number, unit in zip(found.groups(), _UNITS.values(), strict=True))
    elif found := _SLURM.fullmatch(text):
        groups = found.groups()
        days, hours, minutes, rest = (int(number or 0) for number in (groups[4:] if groups[0] is None else groups[:4]))
        seconds = days * 86400 + hours * 3600 + minutes * 60 + rest
    if seconds <= 0:
        raise ValueError(f"{text!r} is no span of time; write it as 90m, 2h30m, 1d12h or 1-12:00:00")
    return seconds


def span(seconds: float | None) -> str:
    """Seconds as people say them, in two units at most."""
    if seconds is None:
        return ""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    for size, unit, part, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size}{unit}" + (f"{rest}{small}" if rest else "")
    return ""
