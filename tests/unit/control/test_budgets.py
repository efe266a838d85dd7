"""Budgets that refuse are left alone for a while."""

from typing import Any

from heddle.api.meta import ObjectMeta
from heddle.api.pod import Pod, PodSpec
from heddle.api.policy import PodDisruptionBudget
from heddle.control.scheduling.budgets import PODDISRUPTIONBUDGETS, Budgets
from heddle.store.client import decode
from heddle.store.informer import Informer

KEY = "default/kept"


def budgets() -> Budgets:
    raw = b"""{"metadata": {"name": "kept", "namespace": "default"}, "status": {"desiredHealthy": 3},
               "spec": {"minAvailable": 3, "selector": {"matchLabels": {"app": "web"}}}}"""
    budget: PodDisruptionBudget = decode(PODDISRUPTIONBUDGETS, raw)
    store: Any = None
    informer = Informer[PodDisruptionBudget](store, PODDISRUPTIONBUDGETS)
    informer._put(KEY, budget)
    return Budgets(informer)


def pod(app: str) -> Pod:
    return Pod(metadata=ObjectMeta(name="p", namespace="default", labels={"app": app}), spec=PodSpec(containers=[]))


def test_each_refusal_doubles_the_pause_up_to_a_minute() -> None:
    kept = budgets()
    assert kept.least(0.0) == {KEY: 3}
    now, pauses = 0.0, []
    for _ in range(7):
        until = kept.refused(pod("web"), now)
        assert kept.least(until - 0.1)[KEY] > 1_000_000, "nobody may leave"
        assert kept.least(until) == {KEY: 3}
        pauses.append(until - now)
        now = until
    assert pauses == [2, 4, 8, 16, 32, 60, 60]


def test_a_change_of_the_budget_ends_the_pause() -> None:
    kept = budgets()
    kept.refused(pod("web"), 0.0)
    kept.changed(KEY)
    assert kept.least(0.1) == {KEY: 3}
    assert kept.refused(pod("web"), 1.0) == 3.0


def test_a_pod_that_no_budget_keeps_shuts_none() -> None:
    kept = budgets()
    assert kept.refused(pod("db"), 5.0) == 5.0
    assert kept.least(5.0) == {KEY: 3}
