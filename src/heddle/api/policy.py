"""PodDisruptionBudget: the subset of policy/v1 that heddle reads."""

from msgspec import field

from heddle.api.meta import Kind, Struct
from heddle.api.selectors import Selector


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
