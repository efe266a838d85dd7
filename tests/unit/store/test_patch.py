"""The patches, as tables and properties."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heddle.api.errors import BadRequest
from heddle.store.patch import merge, strategic

# RFC 7386, appendix A.
RFC_7386 = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize(("target", "patch", "expected"), RFC_7386)
def test_merge_patches_as_in_the_rfc(target: Any, patch: Any, expected: Any) -> None:
    assert merge(target, patch) == expected


_plain = st.recursive(
    st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=10,
)


@given(_plain, _plain)
def test_a_merge_patch_has_its_effect_once(target: Any, patch: Any) -> None:
    once = merge(target, patch)
    assert merge(once, patch) == once


C = {"name": "a", "image": "x", "env": [{"name": "P", "value": "1"}, {"name": "Q", "value": "2"}]}
STRATEGIC = [
    ("items merge by key", {"containers": [C]}, {"containers": [{"name": "a", "image": "y"}]},
     {"containers": [{**C, "image": "y"}]}),
    ("new items are added", {"containers": [C]}, {"containers": [{"name": "b"}]}, {"containers": [C, {"name": "b"}]}),
    ("items of items merge", {"containers": [C]}, {"containers": [{"name": "a", "env": [{"name": "Q", "value": "3"}]}]},
     {"containers": [{**C, "env": [{"name": "P", "value": "1"}, {"name": "Q", "value": "3"}]}]}),
    ("items are deleted", {"env": C["env"]}, {"env": [{"name": "P", "$patch": "delete"}]},
     {"env": [{"name": "Q", "value": "2"}]}),
    ("lists are replaced on demand", {"env": C["env"]}, {"env": [{"$patch": "replace"}, {"name": "R"}]},
     {"env": [{"name": "R"}]}),
    ("maps are replaced on demand", {"m": {"a": 1}}, {"m": {"$patch": "replace", "b": 2}}, {"m": {"b": 2}}),
    ("atomic lists are replaced", {"tolerations": [{"key": "a"}]}, {"tolerations": [{"key": "b"}]},
     {"tolerations": [{"key": "b"}]}),
    ("sets merge", {"finalizers": ["a"]}, {"finalizers": ["b", "a"]}, {"finalizers": ["a", "b"]}),
    ("values leave sets", {"finalizers": ["a", "b"]}, {"$deleteFromPrimitiveList/finalizers": ["a"]},
     {"finalizers": ["b"]}),
    ("order can be set", {"env": [{"name": "P"}, {"name": "Q"}]},
     {"$setElementOrder/env": [{"name": "Q"}, {"name": "P"}], "env": [{"name": "P"}]},
     {"env": [{"name": "Q"}, {"name": "P"}]}),
    ("null removes", {"a": 1, "b": 2}, {"a": None}, {"b": 2}),
]  # fmt: skip


@pytest.mark.parametrize(("target", "patch", "expected"), [row[1:] for row in STRATEGIC], ids=[r[0] for r in STRATEGIC])
def test_strategic_merge(target: Any, patch: Any, expected: Any) -> None:
    assert strategic(target, patch) == expected


def test_an_item_without_its_key_is_refused() -> None:
    with pytest.raises(BadRequest, match="merge key 'name'"):
        strategic({"env": []}, {"env": [{"value": "x"}]})
