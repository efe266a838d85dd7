"""PodDisruptionBudget: the subset of policy/v1 that heddle reads."""

from typing import Literal

from msgspec import field

from heddle.api.meta import Kind, Struct
from heddle.api.selectors import LabelSelector


class SelectorRequirement(Struct):
    """A demand on one label."""

    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = "In"
    values: list[str] = []


class Selector(Struct):
    """Labels that must all hold; an empty one selects everything."""

    match_labels: dict[str, str] = {}
    match_expressions: list[SelectorRequirement] = []

    def parsed(self) -> LabelSelector:
        """The same as a selector that matches."""
        return LabelSelector.of(
            [(key, "In", [value]) for key, value in self.match_labels.items()]
            + [(demand.key, demand.operator, demand.values) for demand in self.match_expressions]
        )


class PodDisruptionBudgetSpec(Struct):
    """Which pods it keeps."""

    selector: Selector | None = None


class PodDisruptionBudgetStatus(Struct):
    """How many of them must stay."""

    desired_healthy: int = 0


class PodDisruptionBudget(Kind):
    """So many of some pods keep running."""

    API_VERSION = "policy/v1"
    KIND = "PodDisruptionBudget"

    spec: PodDisruptionBudgetSpec = field(default_factory=PodDisruptionBudgetSpec)
    status: PodDisruptionBudgetStatus = field(default_factory=PodDisruptionBudgetStatus)
