"""Affinity and spread constraints of pods, as crowds and rules of the engine."""

from typing import Any

import msgspec
import pytest

from heddle.api.core import Namespace
from heddle.api.pod import Pod
from heddle.control.grouping.groups import Groups
from heddle.control.grouping.kinds import known
from heddle.control.grouping.neighbours import Neighbourhood
from heddle.engine import Apart, Neighbours

WEB: dict[str, Any] = {"matchLabels": {"app": "web"}}
WEB_OF_A = "pods with app=web of namespace a"


def pod(name: str, labels: dict[str, str] | None = None, space: str = "a", **spec: Any) -> Pod:
    meta = {"name": name, "namespace": space, "labels": labels or {}, "creationTimestamp": "2026-01-01T00:00:00Z"}
    container = {"name": "c", "resources": {"limits": {"nvidia.com/gpu": 1}}}
    return msgspec.convert(
        {"metadata": meta, "spec": {"schedulerName": "heddle", "containers": [container], **spec}}, Pod
    )


def affinity(**terms: dict[str, Any]) -> dict[str, Any]:
    """`apart` and `near` terms, by topology `zone` where they name none."""
    fields = {"apart": "podAntiAffinity", "near": "podAffinity"}
    return {
        fields[name]: {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "zone", **term}]}
        for name, term in terms.items()
    }


def learned(*pods: Pod, spaces: dict[str, dict[str, str]] | None = None) -> Neighbourhood:
    known_spaces = {
        name: msgspec.convert({"metadata": {"name": name, "labels": labels}}, Namespace)
        for name, labels in (spaces or {}).items()
    }
    found = Neighbourhood("heddle", known_spaces)
    for each in pods:
        found.learn(each)
    return found


def test_nothing_is_known_where_nobody_has_a_rule() -> None:
    found = learned(pod("a", {"app": "web"}), pod("b"))
    assert found.of(pod("a", {"app": "web"})) is None
    assert not found.news()


def test_pods_are_of_the_crowds_that_rules_are_about() -> None:
    shy = pod("shy", {"app": "web"}, affinity=affinity(apart={"labelSelector": WEB}))
    found = learned(shy)
    assert (found.news(), found.news()) == ({WEB_OF_A}, set())
    assert found.within({WEB_OF_A, "others"}, pod("other", {"app": "web"}))
    assert not found.within({WEB_OF_A}, pod("other", {"app": "db"}))
    assert found.of(shy) == Neighbours((WEB_OF_A,), apart=(Apart("zone", WEB_OF_A),))
    assert found.of(pod("other", {"app": "web"})) == Neighbours((WEB_OF_A,))
    assert found.of(pod("other", {"app": "web"}, space="b")) is None
    assert found.of(pod("other", {"app": "db"})) is None
    found.forget(shy)
    assert found.of(pod("other", {"app": "web"})) is None


@pytest.mark.parametrize(
    ("term", "expected"),
    [
        ({"labelSelector": {}}, {"a/web", "a/db", "a/none"}),
        ({}, set()),
        ({"labelSelector": WEB, "namespaces": ["b", "c"]}, {"b/web", "c/web"}),
        ({"labelSelector": WEB, "namespaceSelector": {}}, {"a/web", "b/web", "c/web"}),
        ({"labelSelector": WEB, "namespaces": ["a"], "namespaceSelector": {"matchLabels": {"team": "x"}}},
         {"a/web", "c/web"}),
        ({"labelSelector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}}, {"a/web", "a/db"}),
        ({"labelSelector": {"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}}, {"a/none"}),
        ({"labelSelector": {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["db"]}]}},
         {"a/web", "a/none"}),
        ({"labelSelector": {}, "matchLabelKeys": ["app", "absent"]}, {"a/web"}),
        ({"labelSelector": {}, "mismatchLabelKeys": ["app"]}, {"a/db", "a/none"}),
    ],
)  # fmt: skip
def test_whom_a_term_selects(term: dict[str, Any], expected: set[str]) -> None:
    shy = pod("shy", {"app": "web"}, affinity=affinity(apart=term))
    found = learned(shy, spaces={"a": {}, "b": {}, "c": {"team": "x"}})
    labels: dict[str, dict[str, str]] = {"web": {"app": "web"}, "db": {"app": "db"}, "none": {}}
    there = {f"{space}/{name}": found.of(pod(name, labels[name], space)) for space in "abc" for name in labels}
    assert {name for name, wish in there.items() if wish and wish.crowds} == expected
    assert found.by_labels == ("namespaceSelector" in term)


def test_who_is_near_must_be_what_all_terms_ask_for() -> None:
    terms = [
        {"topologyKey": "zone", "labelSelector": WEB},
        {"topologyKey": "rack", "labelSelector": {"matchLabels": {"tier": "1"}}},
    ]
    wish = pod("wish", affinity={"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}})
    found = learned(wish)
    rules = found.of(wish)
    assert rules is not None
    assert rules.near is not None
    assert rules.near.levels == ("zone", "rack")
    assert found.of(pod("half", {"app": "web"})) is None
    both = found.of(pod("both", {"app": "web", "tier": "1"}))
    assert both is not None
    assert both.crowds == (rules.near.crowd,)


def test_a_term_without_a_selector_is_near_to_nobody() -> None:
    found = learned(wish := pod("wish", affinity=affinity(near={})))
    rules = found.of(wish)
    assert rules is not None
    assert rules.near is not None
    assert not rules.crowds


def test_spread_constraints() -> None:
    rule = {"topologyKey": "zone", "maxSkew": 2, "labelSelector": WEB, "matchLabelKeys": ["hash"], "minDomains": 3,
            "nodeAffinityPolicy": "Ignore", "nodeTaintsPolicy": "Honor"}  # fmt: skip
    easy = {"topologyKey": "rack", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": WEB}
    bare = {"topologyKey": "rack", "labelSelector": {}}
    wish = pod("wish", {"app": "web", "hash": "7"}, topologySpreadConstraints=[rule, easy, bare])
    rules = learned(wish).of(wish)
    assert rules is not None
    first, second = rules.even
    assert (first.level, first.crowd) == ("zone", "pods with app=web,hash=7 of namespace a")
    assert (first.skew, first.values, first.admitted, first.tolerated) == (2, 3, False, True)
    assert (second.level, second.crowd, second.skew) == ("rack", "", 1)
    (soft,) = rules.evened
    assert (soft.level, soft.crowd) == ("rack", WEB_OF_A)
    assert rules.crowds == (WEB_OF_A, first.crowd)


def test_preferred_affinity_is_company_that_is_liked_or_disliked_by_its_weight() -> None:
    def terms(weight: int, **term: Any) -> dict[str, Any]:
        wish = {"weight": weight, "podAffinityTerm": {"topologyKey": "zone", **term}}
        return {"preferredDuringSchedulingIgnoredDuringExecution": [wish]}

    wish = {"podAffinity": terms(7, labelSelector=WEB), "podAntiAffinity": terms(30, labelSelector={"matchLabels": {}})}
    rules = learned(mine := pod("mine", {"app": "web"}, affinity=wish)).of(mine)
    assert rules is not None
    assert [(one.level, one.crowd, one.weight) for one in rules.liked] == [
        ("zone", WEB_OF_A, 7), ("zone", "pods of namespace a", -30)
    ]  # fmt: skip
    assert not rules.ruled
    nobody = pod("other", affinity={"podAffinity": terms(7)})
    assert learned(nobody).of(nobody) is None
    stranger = pod("x", affinity=wish, schedulerName="other", nodeName="n")
    assert learned(stranger).of(stranger) is None


def test_of_pods_of_others_only_counts_whom_they_shun_once_they_have_a_node() -> None:
    shy = affinity(apart={"labelSelector": WEB}, near={"labelSelector": WEB})
    assert learned(pod("x", affinity=shy, schedulerName="other")).of(pod("y", {"app": "web"})) is None
    there = pod("x", affinity=shy, schedulerName="other", nodeName="n")
    found = learned(there)
    rules = found.of(there)
    assert rules is not None
    assert (rules.near, len(rules.apart)) == (None, 1)
    assert found.of(pod("y", {"app": "web"})) is not None


def test_pods_with_a_volume_for_one_pod_at_a_time_shun_each_other_wherever_they_are() -> None:
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": "one"}}]
    first, second = pod("first", volumes=volumes), pod("second", volumes=volumes)
    shared = pod("shared", volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "many"}}])
    found = Neighbourhood("heddle", {}, lambda claim: claim == "a/one")
    for each in (first, second, shared, pod("waits", volumes=volumes, schedulerName="other")):
        found.learn(each)
    crowd = "pods that use claim one of namespace a"
    assert found.of(first) == found.of(second) == Neighbours((crowd,), apart=(Apart("", crowd),))
    assert found.of(shared) is None
    assert found.of(pod("elsewhere", space="b", volumes=volumes)) is None
    found.forget(first)
    found.forget(second)
    assert found.of(first) is None


def test_pods_that_count_otherwise_are_a_set_of_their_own() -> None:
    labels = {"heddle.dev/workload": "gang", "heddle.dev/workload-size": "3"}
    groups = Groups("heddle", known(), lambda kind, namespace, name: None)
    pods = [pod(f"p{at}", labels | ({"app": "web"} if at == 2 else {})) for at in range(3)]
    before = groups.group("a/gang", pods, {}, None)
    assert before is not None
    assert set(before.sets.values()) == {"pods"}
    groups.neighbours.learn(pod("shy", affinity=affinity(apart={"labelSelector": WEB})))
    after = groups.group("a/gang", pods, {}, None)
    assert after is not None
    assert [after.sets[f"p{at}"] == "pods" for at in range(3)] == [True, True, False]
    assert sorted(s.count for s in after.workload.spec.pod_sets) == [1, 2]
