"""Selectors select as Kubernetes does."""

import pytest

from heddle.api.errors import BadRequest
from heddle.api.selectors import FieldSelector, LabelSelector

LABELS = {"app": "a", "tier": "x"}


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        ("", True), ("app=a", True), ("app==a", True), ("app=b", False), ("app!=a", False), ("none!=a", True),
        ("tier in (x, y)", True), ("tier notin (x)", False), ("none notin (x)", True), ("app", True), ("!app", False),
        ("!none", True), ("app=a,tier in (y)", False), ("app=a, tier in (x,y),!none", True),
    ],
)  # fmt: skip
def test_label_selectors(text: str, selected: bool) -> None:
    assert LabelSelector.parse(text).matches(LABELS) is selected


@pytest.mark.parametrize("text", ["a b", "app in x", "=x", "a in (x"])
def test_a_broken_label_selector_is_named(text: str) -> None:
    with pytest.raises(BadRequest, match="unable to parse"):
        LabelSelector.parse(text)


def test_field_selectors() -> None:
    pod = {"metadata": {"name": "p"}, "spec": {"nodeName": "n"}}
    assert FieldSelector.parse("spec.nodeName=n,metadata.name!=q", "Pod").matches(pod)
    assert FieldSelector.parse("status.phase=", "Pod").matches(pod)
    with pytest.raises(BadRequest, match=r"field label not supported: spec\.x"):
        FieldSelector.parse("spec.x=1", "Pod")
