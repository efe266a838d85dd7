"""Faults between queues become conditions, in whatever order queues are applied."""

from heddle.control import tree


def test_a_tree_in_order_has_no_faults() -> None:
    assert tree.faults({"root": "", "a": "root", "b": "a"}) == {}


def test_a_missing_parent_faults_all_below() -> None:
    found = tree.faults({"a": "gone", "b": "a"})
    assert found["a"][0] == found["b"][0] == "ParentNotFound"
    assert "'gone' does not exist; create it" in found["a"][1]


def test_a_cycle_is_named_whole() -> None:
    found = tree.faults({"a": "b", "b": "c", "c": "a", "d": "a", "e": ""})
    assert {name: reason for name, (reason, _) in found.items()} == dict.fromkeys("abcd", "Cycle")
    assert "a -> b -> c -> a" in found["a"][1]
