"""Times on the wire: RFC 3339 in UTC, and seconds since 1970. Reads no clock."""

from datetime import UTC, datetime


def to_seconds(text: str | None) -> float:
    """Seconds since 1970 of an RFC 3339 time; 0 for none."""
    return datetime.fromisoformat(text).timestamp() if text else 0.0


def readable(text: str | None) -> float | None:
    """The same of a time that anybody may have written: None where there is none, or it is no time."""
    try:
        return to_seconds(text) if text else None
    except ValueError:
        return None


def to_text(seconds: float, *, micro: bool = False) -> str:
    """RFC 3339 of seconds since 1970; whole seconds as metav1.Time, or microseconds as metav1.MicroTime."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if micro else "%Y-%m-%dT%H:%M:%SZ")
