"""The cluster's PodDisruptionBudgets, as the engine keeps them."""

from heddle.api.pod import Pod
from heddle.api.policy import PodDisruptionBudget
from heddle.api.registry import Resource
from heddle.api.selectors import LabelSelector
from heddle.store.informer import Informer

PODDISRUPTIONBUDGETS = Resource(
    "policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", True, PodDisruptionBudget, ("pdb",)
)

_ALL = 10**9
_PAUSE, _LONGEST = 2.0, 60.0
"""Seconds in which a budget that refused is left alone: at first, and at most."""


class Budgets:
    """Which budgets keep a pod, and how many of its like must run.

    The API server has the last word on an eviction: it counts pods that are Ready, and the engine those that have a
    node.
    """

    def __init__(self, informer: Informer[PodDisruptionBudget]) -> None:
        """Know the budgets that an informer follows."""
        self.informer = informer
        self._selectors: dict[str, tuple[PodDisruptionBudget, LabelSelector | None]] = {}
        self._shut: dict[str, float] = {}
        self._pauses: dict[str, float] = {}

    def least(self, now: float) -> dict[str, int]:
        """How many pods of each budget must run, by `namespace/name`; of one that refused, all for a while."""
        return {
            key: _ALL if self._shut.get(key, 0.0) > now else budget.status.desired_healthy
            for key, budget in self.informer.objects.items()
        }

    def refused(self, pod: Pod, now: float) -> float:
        """The API server refused an eviction: nobody whom the same budgets keep is tried again before this moment.

        Each refusal doubles the pause, until the budget's status says that something has changed (`changed`).
        """
        until = now
        for key in self.of(pod):
            pause = self._pauses[key] = min(_LONGEST, 2 * self._pauses.get(key, _PAUSE / 2))
            self._shut[key] = now + pause
            until = max(until, self._shut[key])
        return until

    def changed(self, key: str) -> None:
        """A budget is another one now, or its pods are."""
        self._shut.pop(key, None)
        self._pauses.pop(key, None)

    def of(self, pod: Pod) -> tuple[str, ...]:
        """The budgets that keep a pod."""
        namespace = pod.metadata.namespace
        return tuple(
            key
            for key, budget in sorted(self.informer.objects.items())
            if budget.metadata.namespace == namespace
            and (selector := self._selector(key, budget)) is not None
            and selector.matches(pod.metadata.labels)
        )

    def _selector(self, key: str, budget: PodDisruptionBudget) -> LabelSelector | None:
        known = self._selectors.get(key)
        if known is None or known[0].spec != budget.spec:
            selector = budget.spec.selector.parsed() if budget.spec.selector else None
            known = self._selectors[key] = (budget, selector)
        return known[1]
