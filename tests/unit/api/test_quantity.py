"""Quantities are exact thousandths."""

import pytest

from heddle.api import quantity


@pytest.mark.parametrize(
    ("text", "thousandths"),
    [(4, 4000), ("4", 4000), ("500m", 500), ("1Ki", 1024_000), ("1.5", 1500), ("2e3", 2_000_000), ("1u", 1), ("0", 0)],
)
def test_quantities_parse_as_in_kubernetes(text: int | str, thousandths: int) -> None:
    assert quantity.milli(text) == thousandths


@pytest.mark.parametrize("text", ["", "x", "4Gx", "nan", "1 2", "0x10", True])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        quantity.milli(text)


def test_bytes_render_with_the_largest_exact_suffix() -> None:
    assert quantity.render_bytes(16 * 2**30) == "16Gi"
    assert quantity.render_bytes(1000) == "1000"
    assert quantity.render(500) == "500m"
    assert quantity.render(3000) == "3"
