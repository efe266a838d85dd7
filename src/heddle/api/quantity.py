"""Kubernetes quantities as exact integers of thousandths ("milli")."""

import re
from decimal import Decimal

_FORM = re.compile(r"^([+-]?(?:\d+(?:\.\d*)?|\.\d+))(?:(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)|[eE]([+-]?\d+))?$")
_FACTOR = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1),
    "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9), "T": Decimal(10**12),
    "P": Decimal(10**15), "E": Decimal(10**18),
    "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40),
    "Pi": Decimal(2**50), "Ei": Decimal(2**60),
}  # fmt: skip


def milli(value: int | float | str) -> int:
    """Thousandths of the quantity, rounded up as Kubernetes does: "500m" is 500, 4 is 4000, "1Ki" is 1024000.

    Raises:
        ValueError: not a quantity.
    """
    if isinstance(value, bool):
        raise ValueError(f"{value!r} is not a quantity")
    if isinstance(value, int):
        return value * 1000
    match = _FORM.match(str(value).strip())
    if match is None:
        raise ValueError(f"{value!r} is not a quantity; write for instance 4, 500m or 16Gi")
    number, suffix, exponent = match.groups()
    exact = Decimal(number) * _FACTOR[suffix or ""] * (Decimal(10) ** int(exponent or 0)) * 1000
    return int(exact.to_integral_value(rounding="ROUND_CEILING"))


def whole(value: int | float | str) -> int:
    """The quantity in whole units, rounded up: bytes of "16Gi", devices of 4."""
    return -(-milli(value) // 1000)


def render(thousandths: int) -> str:
    """The shortest usual text of so many thousandths: 4000 is "4", 500 is "500m"."""
    return str(thousandths // 1000) if thousandths % 1000 == 0 else f"{thousandths}m"


def render_bytes(count: int) -> str:
    """Bytes with the largest binary suffix that keeps them exact: 17179869184 is "16Gi"."""
    for suffix in ("Ti", "Gi", "Mi", "Ki"):
        size = int(_FACTOR[suffix])
        if count and count % size == 0:
            return f"{count // size}{suffix}"
    return str(count)
