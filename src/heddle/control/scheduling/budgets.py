"""The cluster's PodDisruptionBudgets, as the engine keeps them."""

from heddle.api.pod import Pod
from heddle.api.policy import PodDisruptionBudget
from heddle.api.registry import Resource
from heddle.api.selectors import LabelSelector
from heddle.store.informer import Informer

PODDISRUPTIONBUDGETS = Resource(
    "policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", True, PodDisruptionBudget, ("pdb",)
)


class Budgets:
    """Which budgets keep a pod, and how many of its like must run.

    The API server has the last word on an eviction: it counts pods that are Ready, and the engine those that have a
    node.
    """

    def __init__(self, informer: Informer[PodDisruptionBudget]) -> None:
        """Know the budgets that an informer follows."""
        self.informer = informer
        self._selectors: dict[str, tuple[PodDisruptionBudget, LabelSelector | None]] = {}

    def least(self) -> dict[str, int]:
        """How many pods of each budget must run, by `namespace/name`."""
        return {key: budget.status.desired_healthy for key, budget in self.informer.objects.items()}

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
