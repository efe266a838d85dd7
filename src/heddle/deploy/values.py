"""Values: what an administrator may choose, with its default; the chart's values.yaml and schema come from here."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, field

from heddle.api import quantity
from heddle.api.meta import Struct

NAMESPACE = "heddle-system"
"""Where the controller, its leases and its records are; the code knows it by name, so it is not a value."""


class Image(Struct):
    """The controller's image."""

    repository: Annotated[str, Meta(description="Without tag.", min_length=1)] = "ghcr.io/heddle/heddle"
    tag: Annotated[str, Meta(description="Empty: the chart's appVersion.")] = ""
    pull_policy: Annotated[
        Literal["Always", "IfNotPresent", "Never"], Meta(description="When the node asks the registry.")
    ] = "IfNotPresent"


class Definitions(Struct):
    """heddle's CustomResourceDefinitions."""

    install: Annotated[bool, Meta(description="false: somebody else installs them (helm needs --skip-crds too).")] = (
        True
    )
    keep: Annotated[
        bool,
        Meta(
            description="true: removing heddle leaves them, and with them every Queue, TrainingJob and Workload. "
            "heddle install knows --keep-crds instead."
        ),
    ] = False


class Disruption(Struct):
    """The PodDisruptionBudget of the controller."""

    enabled: Annotated[bool, Meta(description="false: none is made.")] = True
    max_unavailable: Annotated[int, Meta(description="Controllers that a drain may stop at once.", ge=1)] = 1


class Toggle(Struct):
    """Something that is there or not."""

    enabled: Annotated[bool, Meta(description="false: left out.")] = True


class DefaultQueue(Struct):
    """The queue `default`, in which jobs that name no queue wait."""

    enabled: Annotated[bool, Meta(description="false: it is not made.")] = True
    spec: Annotated[
        dict[str, Any],
        Meta(
            description="Its spec when it is first made (docs/queues.md); later changes to the Queue itself are kept."
        ),
    ] = {}


class Resources(Struct):
    """Requests and limits of the controller."""

    requests: Annotated[dict[str, int | str], Meta(description="What is kept for it.")] = field(
        default_factory=lambda: {"cpu": "200m", "memory": "512Mi"}
    )
    limits: Annotated[
        dict[str, int | str], Meta(description="What it may use; no limit on cpu, which would slow plans.")
    ] = field(default_factory=lambda: {"memory": "4Gi"})


class Values(Struct):
    """Values of heddle's installation."""

    image: Annotated[Image, Meta(description="The controller's image.")] = field(default_factory=Image)
    image_pull_secrets: Annotated[
        list[dict[str, str]], Meta(description='Secrets of the registry, as [{"name": "..."}].')
    ] = []
    replicas: Annotated[int, Meta(description="Controllers; one leads, the others stand by.", ge=0, le=9)] = 2
    extra_args: Annotated[list[str], Meta(description="Further arguments of `heddle controller`.")] = []
    resources: Annotated[Resources, Meta(description="Requests and limits of the controller.")] = field(
        default_factory=Resources
    )
    priority_class_name: Annotated[
        str, Meta(description="Nothing is placed while the controller is not, so it goes first.")
    ] = "system-cluster-critical"
    node_selector: Annotated[dict[str, str], Meta(description="Labels of nodes for the controller.")] = {}
    tolerations: Annotated[list[dict[str, Any]], Meta(description="Taints that the controller accepts.")] = []
    affinity: Annotated[dict[str, Any], Meta(description="Affinity of the controller.")] = {}
    pod_annotations: Annotated[dict[str, str], Meta(description="Further annotations of its pods.")] = {}
    pod_disruption_budget: Annotated[Disruption, Meta(description="PodDisruptionBudget of the controller.")] = field(
        default_factory=Disruption
    )
    crds: Annotated[Definitions, Meta(description="heddle's CustomResourceDefinitions.")] = field(
        default_factory=Definitions
    )
    default_queue: Annotated[
        DefaultQueue, Meta(description="The queue `default`, in which jobs that name no queue wait.")
    ] = field(default_factory=DefaultQueue)
    admission: Annotated[
        Toggle,
        Meta(description="Policies that refuse faulty objects of heddle's kinds and forged submitters; no webhooks."),
    ] = field(default_factory=Toggle)
    user_roles: Annotated[
        Toggle, Meta(description="Rights on heddle's kinds for everyone with the cluster roles view, edit and admin.")
    ] = field(default_factory=Toggle)


def convert(raw: dict[str, Any]) -> Values:
    """Values that a user gives, over the defaults.

    Raises:
        ValueError: an unknown name or a wrong value; says where.
    """
    _known(raw, msgspec.to_builtins(_everything(Values())), "")
    try:
        values = msgspec.convert(raw, Values)
    except msgspec.ValidationError as error:
        fault, _, where = str(error).partition(" - at `$.")
        raise ValueError(f"{where.rstrip('`')}: {fault}" if where else fault) from None
    for part in ("requests", "limits"):
        for name, value in getattr(values.resources, part).items():
            _quantity(f"resources.{part}.{name}", value)
    return values


def _quantity(where: str, value: int | str) -> None:
    # kube-apiserver would refuse the Deployment, when all before it is there already
    try:
        quantity.milli(value)
    except (ValueError, ArithmeticError):
        raise ValueError(f'{where}: {value!r} is not valid; give a quantity such as 4, "500m" or "16Gi"') from None


def _known(raw: dict[str, Any], defaults: dict[str, Any], path: str) -> None:
    for name, value in raw.items():
        if name not in defaults:
            raise ValueError(f"no value is named {path}{name}; there are: {', '.join(path + d for d in defaults)}")
        if path + name in _FREE:
            continue
        if isinstance(value, dict) and isinstance(defaults[name], dict):
            _known(value, defaults[name], f"{path}{name}.")


_FREE = ("nodeSelector", "affinity", "podAnnotations", "defaultQueue.spec", "resources.requests", "resources.limits")


def _everything(value: Any) -> Any:
    """A Struct with its defaults spelled out."""
    if isinstance(value, msgspec.Struct):
        return {f.encode_name: _everything(getattr(value, f.name)) for f in msgspec.structs.fields(value)}
    return value


def spelled_out(values: Values) -> dict[str, Any]:
    """All values, defaults too, by their names on the wire."""
    told: dict[str, Any] = _everything(values)
    return told
