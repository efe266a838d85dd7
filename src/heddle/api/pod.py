"""Pod: the subset of core/v1 Pod that heddle reads and writes. Other fields are stored as they come."""

from typing import Annotated, Any

from msgspec import Meta, field

from heddle.api.clock import to_seconds
from heddle.api.meta import Condition, Kind, LocalObjectReference, Quantity, Resources, Struct, find_condition
from heddle.api.security import PodSecurityContext, SecurityContext
from heddle.api.selectors import Selector


class KeySelector(Struct, kw_only=True):
    """A key of a ConfigMap or Secret of the pod's namespace."""

    name: Annotated[str, Meta(description="Object.")] = ""
    key: Annotated[str, Meta(description="Key in its data.")]
    optional: Annotated[bool, Meta(description="true: a missing key is no fault.")] = False


class FieldRef(Struct):
    """A field of the pod itself."""

    field_path: Annotated[str, Meta(description="For instance metadata.name.")]
    api_version: Annotated[str, Meta(description="Version of the schema.")] = ""


class EnvVarSource(Struct):
    """Where a variable's value comes from; resolved when the container starts."""

    config_map_key_ref: Annotated[KeySelector | None, Meta(description="Key of a ConfigMap.")] = None
    secret_key_ref: Annotated[KeySelector | None, Meta(description="Key of a Secret.")] = None
    field_ref: Annotated[FieldRef | None, Meta(description="Field of the pod.")] = None


class EnvVar(Struct):
    """An environment variable."""

    name: Annotated[str, Meta(description="Name.", pattern="^[A-Za-z_][A-Za-z0-9_.-]*$")]
    value: Annotated[str, Meta(description="Value.")] = ""
    value_from: Annotated[EnvVarSource | None, Meta(description="Source of the value.")] = None


class EnvFromSource(Struct):
    """All keys of a ConfigMap or Secret as variables."""

    prefix: str = ""
    config_map_ref: LocalObjectReference | None = None
    secret_ref: LocalObjectReference | None = None


class ResourceRequirements(Struct):
    """What a container asks for (requests) and is held to (limits)."""

    requests: Resources = {}
    limits: Resources = {}


class ContainerPort(Struct):
    """A port that the container listens on."""

    container_port: int = 0
    name: str = ""
    host_port: int = 0
    protocol: str = "TCP"


class VolumeMount(Struct, kw_only=True):
    """Where a container sees a volume of its pod."""

    name: str
    mount_path: str = ""
    sub_path: str = ""
    read_only: bool = False


class Container(Struct):
    """One program of a pod."""

    name: str
    image: str = ""
    command: list[str] = []
    args: list[str] = []
    working_dir: str = ""
    env: list[EnvVar] = []
    env_from: list[EnvFromSource] = []
    resources: ResourceRequirements = field(default_factory=ResourceRequirements)
    ports: list[ContainerPort] = []
    restart_policy: str = ""
    volume_mounts: list[VolumeMount] = []
    termination_message_policy: str = ""
    security_context: SecurityContext | None = None


class NodeSelectorRequirement(Struct):
    """A demand on one label or field of a node."""

    key: str = ""
    operator: str = ""
    values: list[str] = []


class NodeSelectorTerm(Struct):
    """Demands that must all hold; without any, no node meets it."""

    match_expressions: list[NodeSelectorRequirement] = []
    match_fields: list[NodeSelectorRequirement] = []


class NodeSelector(Struct):
    """A node must meet one of the terms."""

    node_selector_terms: list[NodeSelectorTerm] = []


class PreferredSchedulingTerm(Struct):
    """Nodes that are better than others."""

    weight: int = 1
    preference: NodeSelectorTerm = field(default_factory=NodeSelectorTerm)


class PodNodeAffinity(Struct):
    """Nodes that a pod must, or should, be on."""

    required_during_scheduling_ignored_during_execution: NodeSelector | None = None
    preferred_during_scheduling_ignored_during_execution: list[PreferredSchedulingTerm] = []


class PodAffinityTerm(Struct):
    """Pods, and what of a node is to be theirs too (or is not)."""

    label_selector: Selector | None = None
    topology_key: str = ""
    namespaces: list[str] = []
    namespace_selector: Selector | None = None
    match_label_keys: list[str] = []
    mismatch_label_keys: list[str] = []


class WeightedPodAffinityTerm(Struct):
    """Pods whose company makes a node better (or worse)."""

    weight: int = 1
    pod_affinity_term: PodAffinityTerm = field(default_factory=PodAffinityTerm)


class PodAffinity(Struct):
    """Pods that a pod must, or should, be near to (or away from)."""

    required_during_scheduling_ignored_during_execution: list[PodAffinityTerm] = []
    preferred_during_scheduling_ignored_during_execution: list[WeightedPodAffinityTerm] = []


class Affinity(Struct):
    """Where a pod may be, by nodes and by other pods."""

    node_affinity: PodNodeAffinity | None = None
    pod_affinity: PodAffinity | None = None
    pod_anti_affinity: PodAffinity | None = None


class TopologySpreadConstraint(Struct):
    """Keeps a pod away from where many like it are."""

    topology_key: str = ""
    max_skew: int = 1
    when_unsatisfiable: str = "DoNotSchedule"
    label_selector: Selector | None = None
    min_domains: int | None = None
    node_affinity_policy: str = ""
    node_taints_policy: str = ""
    match_label_keys: list[str] = []


class PersistentVolumeClaimSource(Struct):
    """A claim of the pod's namespace."""

    claim_name: str = ""
    read_only: bool = False


class HostPathSource(Struct):
    """A directory of the node."""

    path: str = ""
    type: str = ""


class KeyToPath(Struct, kw_only=True):
    """A key as a file."""

    key: str
    path: str
    mode: int | None = None


class ConfigMapSource(Struct):
    """A ConfigMap of the pod's namespace."""

    name: str = ""
    items: list[KeyToPath] = []
    optional: bool | None = None


class EmptyDirSource(Struct):
    """Empty when the pod begins, gone when it ends."""

    medium: str = ""
    size_limit: Quantity | None = None


class Volume(Struct):
    """A volume of a pod: those kinds that bear on where it may run, and those that jobs' pods have."""

    name: str = ""
    persistent_volume_claim: PersistentVolumeClaimSource | None = None
    ephemeral: Any = None
    host_path: HostPathSource | None = None
    config_map: ConfigMapSource | None = None
    empty_dir: EmptyDirSource | None = None


class SchedulingGate(Struct):
    """Keeps a pod from being scheduled until it is removed."""

    name: str = ""


class PodToleration(Struct):
    """Accepts matching taints."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""
    toleration_seconds: int | None = None


class PodSpec(Struct):
    """What runs, and where it may."""

    containers: list[Container] = []
    init_containers: list[Container] = []
    node_name: str = ""
    node_selector: dict[str, str] = {}
    tolerations: list[PodToleration] = []
    restart_policy: str = "Always"
    hostname: str = ""
    subdomain: str = ""
    scheduler_name: str = ""
    termination_grace_period_seconds: int | None = None
    active_deadline_seconds: int | None = None
    priority: int | None = None
    preemption_policy: str = ""
    affinity: Affinity | None = None
    topology_spread_constraints: list[TopologySpreadConstraint] = []
    scheduling_gates: list[SchedulingGate] = []
    overhead: Resources = {}
    volumes: list[Volume] = []
    resource_claims: list[Any] = []
    resources: ResourceRequirements | None = None
    service_account_name: str = ""
    image_pull_secrets: list[LocalObjectReference] = []
    security_context: PodSecurityContext | None = None


class ContainerStateRunning(Struct):
    """Since when it runs."""

    started_at: str | None = None


class ContainerStateTerminated(Struct):
    """How it ended."""

    exit_code: int = 0
    signal: int = 0
    reason: str = ""
    message: str = ""
    started_at: str | None = None
    finished_at: str | None = None
    container_id: Annotated[str, Meta()] = field(default="", name="containerID")


def run_id(generation: str, run: int) -> str:
    """containerID of a run: the restart generation that it was started for, and its number."""
    return f"heddle://{generation}/{run}"


def run_generation(container_id: str, default: str) -> str:
    """The restart generation that a run was started for; `default` where another runtime does not say."""
    scheme, _, rest = container_id.partition("://")
    return rest.rpartition("/")[0] if scheme == "heddle" else default


class ContainerStateWaiting(Struct):
    """Why it does not run yet."""

    reason: str = ""
    message: str = ""


class ContainerState(Struct):
    """Exactly one of its fields is set."""

    running: ContainerStateRunning | None = None
    terminated: ContainerStateTerminated | None = None
    waiting: ContainerStateWaiting | None = None


class ContainerStatus(Struct):
    """State of one container."""

    name: str
    state: ContainerState = field(default_factory=ContainerState)
    last_state: ContainerState = field(default_factory=ContainerState)
    ready: bool = False
    restart_count: int = 0
    image: str = ""
    image_id: Annotated[str, Meta()] = field(default="", name="imageID")
    container_id: Annotated[str, Meta()] = field(default="", name="containerID")
    started: bool | None = None


class PodStatus(Struct):
    """Where the pod stands."""

    phase: str = ""
    conditions: list[Condition] = []
    container_statuses: list[ContainerStatus] = []
    init_container_statuses: list[Any] = []
    message: str = ""
    reason: str = ""
    start_time: str | None = None
    host_ip: Annotated[str, Meta()] = field(default="", name="hostIP")
    pod_ip: Annotated[str, Meta()] = field(default="", name="podIP")
    nominated_node_name: str = ""


class Pod(Kind):
    """One or more programs that run together on a node."""

    API_VERSION = "v1"
    KIND = "Pod"

    spec: PodSpec = field(default_factory=PodSpec)
    status: PodStatus = field(default_factory=PodStatus)

    @property
    def bound(self) -> bool:
        """It has a node, is not leaving, and has not ended."""
        return bool(self.spec.node_name) and not self.metadata.deletion_timestamp and not self.finished

    @property
    def ready(self) -> bool:
        """It says that it does its work."""
        condition = find_condition(self.status.conditions, "Ready")
        return condition is not None and condition.status == "True"

    @property
    def scheduled_at(self) -> float:
        """When it got its node (where that is not said: when it was made), in seconds since 1970."""
        scheduled = find_condition(self.status.conditions, "PodScheduled")
        return to_seconds((scheduled and scheduled.last_transition_time) or self.metadata.creation_timestamp)

    @property
    def finished(self) -> bool:
        """It ran to its end and will not run again."""
        return self.status.phase in ("Succeeded", "Failed")
