"""What all kinds share: Struct conventions, ObjectMeta, conditions, owner references."""

from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta, field

Quantity = int | str
"""A Kubernetes quantity: 4, "500m", "16Gi". Parsed by `heddle.api.quantity`."""

Resources = dict[str, Quantity]
"""Resource name as in Kubernetes ("cpu", "memory", "nvidia.com/gpu") to quantity."""

Positive = Annotated[int, Meta(ge=1)]
Count = Annotated[int, Meta(ge=0)]

Name = Annotated[str, Meta(max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
"""A DNS-1123 subdomain, the form of object names."""


class Struct(msgspec.Struct, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """Base of everything on the wire: camelCase names, defaults left out.

    Decoding tolerates unknown fields (a newer writer may know more than we do); writes of heddle's own kinds
    refuse them in `heddle.api.validate`.
    """


class OwnerReference(Struct):
    """Names the object that this one belongs to; it is collected when its owners are gone."""

    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool | None = None
    block_owner_deletion: bool | None = None


class ObjectMeta(Struct):
    """The standard metadata of an object."""

    name: str = ""
    generate_name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner_references: list[OwnerReference] = []
    finalizers: list[str] = []
    managed_fields: list[Any] = []


class Condition(Struct):
    """One aspect of an object's state, as Kubernetes writes it."""

    type: Annotated[str, Meta(description="Aspect, in CamelCase.", max_length=316)]
    status: Annotated[str, Meta(description="True, False or Unknown.", pattern="^(True|False|Unknown)$")]
    reason: Annotated[str, Meta(description="Machine-readable cause, in CamelCase.")] = ""
    message: Annotated[str, Meta(description="The same for people.")] = ""
    last_transition_time: Annotated[str | None, Meta(description="When status last changed (RFC 3339).")] = None
    observed_generation: Annotated[int, Meta(description="Generation that this speaks of.")] = 0


class LocalObjectReference(Struct):
    """Names an object of the same namespace."""

    name: str = ""


class Kind(Struct):
    """Base of all kinds: `metadata` plus the class-level apiVersion and kind."""

    API_VERSION: ClassVar[str] = ""
    KIND: ClassVar[str] = ""

    api_version: str = ""
    kind: str = ""
    metadata: ObjectMeta = field(default_factory=ObjectMeta)

    def __post_init__(self) -> None:
        """List answers leave out apiVersion and kind of their items; the class knows them."""
        if not self.api_version:
            self.api_version = type(self).API_VERSION
        if not self.kind:
            self.kind = type(self).KIND

    @property
    def key(self) -> str:
        """`namespace/name`, or the bare name of a cluster-scoped object."""
        meta = self.metadata
        return f"{meta.namespace}/{meta.name}" if meta.namespace else meta.name


def set_condition(conditions: list[Condition], new: Condition) -> list[Condition]:
    """Conditions with `new` in place of the one of its type.

    `lastTransitionTime` stays as it was while `status` does not change, as Kubernetes asks.
    """
    kept = []
    for old in conditions:
        if old.type != new.type:
            kept.append(old)
        elif old.status == new.status and old.last_transition_time:
            new = msgspec.structs.replace(new, last_transition_time=old.last_transition_time)
    return [*kept, new]


def find_condition(conditions: list[Condition], type_: str) -> Condition | None:
    """The condition of that type, if there is one."""
    return next((c for c in conditions if c.type == type_), None)
