"""Workload: what the scheduler places as one."""

from typing import Annotated, Literal

from msgspec import Meta, field

from heddle.api.company import Company
from heddle.api.meta import Condition, Count, Kind, Positive, Quantity, Resources, Struct
from heddle.api.queue import GROUP_VERSION

POD_GROUP_LABEL = "heddle.dev/workload"
"""Label of a pod: name of the Workload (same namespace) that it belongs to."""
POD_SET_LABEL = "heddle.dev/pod-set"
"""Label of a pod: its pod set in that Workload."""
QUEUE_LABEL = "heddle.dev/queue"
"""Label of a pod without a Workload object: queue that pays for it."""
WORKLOAD_SIZE_LABEL = "heddle.dev/workload-size"
"""Label of pods that name a Workload which is no object: how many pods it has; they start together."""
MIN_AVAILABLE_LABEL = "heddle.dev/min-available"
"""Label of a pod without a Workload object: how many of those that belong together must run; the others are elastic."""
PREEMPTIBLE_LABEL = "heddle.dev/preemptible"
"""Label of a pod without a Workload object: "true" = it may be evicted for others; absent: as its queue says."""
DERIVED_LABEL = "heddle.dev/derived"
"""Label of a Workload that the scheduler made of pods: its spec is theirs, only its status is of its own."""
GPU_SHARE_ANNOTATION = "heddle.dev/gpu-share"
"""Annotation of a pod: share of one GPU that it uses, for instance 500m (a pod's resources are whole)."""
GPU_MEMORY_ANNOTATION = "heddle.dev/gpu-memory"
"""Annotation of a pod: memory of one GPU that it uses, for instance 20Gi, where it asked by memory."""
DEVICES_ANNOTATION = "heddle.dev/devices"
"""Annotation of a bound pod: ids of its devices, comma-separated. Written by the scheduler."""
RESTART_ANNOTATION = "heddle.dev/restart-generation"
"""Annotation of a pod: when it changes, its containers are stopped and started again with a fresh environment."""
RESTARTS_ANNOTATION = "heddle.dev/restarts"
"""Annotation of a pod: OnRequest: a container that failed starts again only when the restart generation changes."""
CHECKPOINT_ANNOTATION = "heddle.dev/checkpoint-time"
"""Annotation of a pod: when its program last saved what it would resume from (RFC 3339). Its program writes it."""
USER_ANNOTATION = "heddle.dev/submitted-by"
"""Annotation: user who created the object. Written by the API server, refused from clients."""
GROUPS_ANNOTATION = "heddle.dev/submitted-by-groups"
"""Annotation: groups of that user, comma-separated. Written by the API server, refused from clients."""


class TopologyWish(Struct):
    """Where the pods should be relative to each other."""

    required: Annotated[
        str,
        Meta(description="Node label of the level of which one domain must hold all pods.", max_length=317),
    ] = ""
    preferred: Annotated[
        str, Meta(description="Node label of the level of which one domain should.", max_length=317)
    ] = ""


class LabelExpression(Struct):
    """A demand on one label of a node."""

    key: Annotated[str, Meta(description="Label.", min_length=1, max_length=317)]
    operator: Annotated[
        Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"],
        Meta(description="Gt and Lt compare whole numbers; NotIn also holds where the label is absent."),
    ]
    values: Annotated[
        list[str], Meta(description="One or more for In and NotIn, one for Gt and Lt, else none.", max_length=256)
    ] = []


class NodeTerm(Struct):
    """Demands on a node that must all hold."""

    match_expressions: Annotated[list[LabelExpression], Meta(description="The demands.", min_length=1, max_length=32)]


class PreferredNodes(Struct):
    """Nodes that are better than others."""

    weight: Annotated[int, Meta(description="The weights that a node meets add up.", ge=1, le=100)]
    preference: Annotated[NodeTerm, Meta(description="What must hold on the node.")]


class NodeAffinity(Struct):
    """Nodes that pods must, or should, be on."""

    required: Annotated[list[NodeTerm], Meta(description="A node must meet one of these.", max_length=32)] = []
    preferred: Annotated[
        list[PreferredNodes],
        Meta(description="Nodes of more weight come first, before placement is asked.", max_length=32),
    ] = []


class SpreadRule(Struct):
    """Keeps pods apart; give maxPerDomain, maxSkew or both."""

    level: Annotated[
        str,
        Meta(
            description="Node label of the topology level that is counted; kubernetes.io/hostname: single nodes.",
            min_length=1,
            max_length=317,
        ),
    ]
    max_per_domain: Annotated[Positive | None, Meta(description="Pods in one domain at most; 1: no two together.")] = (
        None
    )
    max_skew: Annotated[
        Positive | None, Meta(description="Pods that a domain may hold more than the emptiest that could take them.")
    ] = None


class SliceRule(Struct):
    """Keeps every few pods together, in as few domains as hold them all."""

    level: Annotated[
        str,
        Meta(
            description="Node label of the topology level of which one domain holds a slice.",
            min_length=1,
            max_length=317,
        ),
    ]
    size: Annotated[int, Meta(description="Pods of a slice.", ge=1, le=100_000)] = 1
    balanced: Annotated[bool, Meta(description="true: evenly over the domains used, instead of filling each.")] = False


GpuSpeeds = Annotated[
    dict[str, Quantity],
    Meta(
        description='How fast such models are, as "0.45" or "450m": walltimes are stated for speed 1, which others '
        "have. Without gpuModels: those that it may use, the fastest first."
    ),
]


class Demands(Struct):
    """What alike pods ask of the nodes that they run on, and of the pods around."""

    gpu_models: Annotated[
        list[str],
        Meta(
            description="Models of GPUs that it may use, the best first, named as by the node label "
            "nvidia.com/gpu.product. All pods get GPUs of one model. Empty: any GPUs.",
            max_length=16,
        ),
    ] = []
    gpu_speeds: GpuSpeeds = {}
    node_selector: Annotated[dict[str, str], Meta(description="Labels that a node must have.")] = {}
    node_affinity: Annotated[NodeAffinity, Meta(description="Nodes that pods must, or should, be on.")] = field(
        default_factory=NodeAffinity
    )
    pod_affinity: Annotated[
        Company, Meta(description="Pods that its own must be near to, looked at when one is placed.")
    ] = field(default_factory=Company)
    pod_anti_affinity: Annotated[
        Company, Meta(description="Pods that its own must be away from; these then stay away from them too.")
    ] = field(default_factory=Company)
    spread: Annotated[SpreadRule | None, Meta(description="Keeps its pods apart; not beside slices.")] = None
    slices: Annotated[SliceRule | None, Meta(description="Keeps every few of its pods together.")] = None
    exclusive: Annotated[bool, Meta(description="true: each pod has a node to itself, and nobody joins it.")] = False

    @property
    def seeks_company(self) -> bool:
        """Whether it demands anything of the pods around."""
        return bool(self.pod_affinity.required or self.pod_anti_affinity.required)


class PodSet(Demands, kw_only=True):
    """Identical pods of a workload."""

    name: Annotated[str, Meta(description="Unique in the workload.", min_length=1, max_length=63)]
    count: Annotated[int, Meta(description="Pods wished for.", ge=1, le=100_000)]
    min_count: Annotated[
        Positive | None,
        Meta(description="All-or-nothing minimum; absent: count. Pods beyond it are elastic."),
    ] = None
    step: Annotated[
        Positive, Meta(description="Elastic pods start and leave so many at a time; divides count - minCount.")
    ] = 1
    resizable: Annotated[
        bool,
        Meta(description="false: how many pods run is settled when they start, from minCount on; they stay so many."),
    ] = True
    resources: Annotated[
        Resources,
        Meta(description='One pod\'s request; nvidia.com/gpu may be a share of one GPU below 1, as "500m".'),
    ] = {}
    gpu_memory: Annotated[
        Quantity | None,
        Meta(description='Memory of one GPU that each pod uses, as "20Gi"; in place of nvidia.com/gpu.'),
    ] = None
    group: Annotated[
        str,
        Meta(
            description="Pod sets of one group start together or not at all; minGroups says how many groups must run.",
            max_length=63,
        ),
    ] = ""
    after: Annotated[
        list[str],
        Meta(
            description="Pod sets of which as many pods as their minCount must be Ready before pods of this one start; "
            "the places of these are held until then.",
            max_length=63,
        ),
    ] = []

    @property
    def minimum(self) -> int:
        """`minCount` with its default."""
        return self.count if self.min_count is None else self.min_count


PlacementStrategy = Annotated[
    Literal["Pack", "Spread", "FragmentationAware"],
    Meta(description="Pack fills nodes; Spread takes the emptiest; FragmentationAware spares what usual work needs."),
]


Priority = Annotated[int, Meta(description="Higher goes first in its queue.", ge=-1_000_000_000, le=1_000_000_000)]
Preemptible = Annotated[bool, Meta(description="false: never evicted for others, and only within quota.")]
SeparateGpus = Annotated[
    bool, Meta(description="true: no two of its pods that use a share of a GPU are on the same one.")
]
GangGrace = Annotated[
    Count,
    Meta(
        description="How long what is left of a gang waits for replacements of what it lost, before it is evicted and "
        "starts anew. Absent: as the scheduler is set, which is 60."
    ),
]


class WorkloadSpec(Struct):
    """What to place, who pays, and how it ranks."""

    queue: Annotated[str, Meta(description="Queue that pays for it.", min_length=1, max_length=253)]
    pod_sets: Annotated[list[PodSet], Meta(description="Its pods.", min_length=1, max_length=64)]
    priority: Priority = 0
    preemptible: Preemptible = True
    topology: Annotated[TopologyWish, Meta(description="Where pods go relative to each other.")] = field(
        default_factory=TopologyWish
    )
    placement: PlacementStrategy = "FragmentationAware"
    walltime_seconds: Annotated[
        Positive | None,
        Meta(description="Runs at most so long, from the start of its first pod; absent: not known. "
             "Room is kept ahead of time only against ends that are known."),
    ] = None  # fmt: skip
    movable: Annotated[
        bool,
        Meta(description="May be stopped and started elsewhere so that others fit: its owner makes its pods anew under "
             "their names, and they resume."),
    ] = False  # fmt: skip
    min_groups: Annotated[
        Positive | None,
        Meta(
            description="So many groups of pod sets must run; those beyond start and leave one by one, each as a "
            "whole. Absent: all must."
        ),
    ] = None
    separate_gpus: SeparateGpus = False
    gang_grace_seconds: GangGrace | None = None


class WorkloadReason(Struct):
    """Why it waits: a code with numbers, and the sentence made of them."""

    code: Annotated[str, Meta(description="Reason code (docs/engine.md).")]
    message: Annotated[str, Meta(description="The sentence for people.")]


class ReservedPlace(Struct):
    """A place held for a pod while those who must leave it do so."""

    pod_set: Annotated[str, Meta(description="Pod set.")]
    pod: Annotated[str, Meta(description="Pod.")]
    node: Annotated[str, Meta(description="Node.")]
    devices: Annotated[list[str], Meta(description="Device ids.")] = []


class Cost(Struct):
    """What one workload lost for another."""

    workload: Annotated[str, Meta(description="namespace/name of who lost; empty: several that lost less.")] = ""
    pods: Annotated[int, Meta(description="Pods that were stopped.")] = 0
    gpu_seconds: Annotated[int, Meta(description="GPUs times seconds since they could last resume: to do again.")] = 0


class WorkloadStatus(Struct):
    """Where it stands."""

    observed_generation: Annotated[int, Meta(description="Generation that this speaks of.")] = 0
    phase: Annotated[
        Literal["", "Pending", "Running", "Finished"],
        Meta(description="Pending: below its minimum; Running: at or above; Finished: its owner is done."),
    ] = ""
    conditions: Annotated[list[Condition], Meta(description="Admitted, and why not.")] = []
    reasons: Annotated[list[WorkloadReason], Meta(description="Why it is pending.")] = []
    position: Annotated[int | None, Meta(description="Place in its queue's line, from 1.")] = None
    expected_start_time: Annotated[
        str | None,
        Meta(
            description="When it is expected to start if work ends at its walltime and nobody comes before it; absent: "
            "nobody can say."
        ),
    ] = None
    bound: Annotated[int, Meta(description="Pods that have a node.")] = 0
    reservation: Annotated[list[ReservedPlace], Meta(description="Places held for it.")] = []
    broken_since: Annotated[str | None, Meta(description="When the running gang fell below its minimum.")] = None
    evictions: Annotated[int, Meta(description="Pods evicted so far for other work.")] = 0
    cost: Annotated[list[Cost], Meta(description="What its start cost others, those that lost most first.")] = []
    walltime_seconds: Annotated[
        int | None, Meta(description="While it runs: its walltime on the models of GPUs that it got, by their speeds.")
    ] = None
    admitted_counts: Annotated[
        dict[str, int], Meta(description="By pod set that is not resizable: how many pods it started with.")
    ] = {}
    checkpoint_time: Annotated[
        str | None,
        Meta(
            description="When it last saved what it would resume from, written by its owner: of equal priority, who "
            "has least to do again is evicted first. Absent: never."
        ),
    ] = None


class Workload(Kind, kw_only=True):
    """What the scheduler places as one: pod sets with min/max counts, queue, priority, topology wish."""

    API_VERSION = GROUP_VERSION
    KIND = "Workload"

    spec: WorkloadSpec
    status: WorkloadStatus = field(default_factory=WorkloadStatus)

    @property
    def derived(self) -> bool:
        """The scheduler made it of pods: its object, if there is one, is only for people to read."""
        return DERIVED_LABEL in self.metadata.labels
