"""Queue: a node of the queue tree, who may use it, and what it is owed."""

from typing import Annotated, Literal

from msgspec import Meta, field

from heddle.api.core import GPU_PRODUCT_LABEL
from heddle.api.meta import Condition, Count, Kind, Name, Positive, Resources, Struct

GROUP_VERSION = "heddle.dev/v1alpha1"


GPU_MODEL_PREFIX = f"{GPU_PRODUCT_LABEL}="
"""Before a model it is the resource name, in amounts of a queue, of the GPUs of that model."""

OWN_RESOURCES = ("cpu", "memory", "ephemeral-storage", "storage", "pods")
HUGEPAGES = "hugepages-"
"""Kubernetes' own names of resources; all others have a domain before them. Of another nothing would ever be asked."""
RESOURCE_REMEDY = "name a resource as pods do, such as nvidia.com/gpu, cpu or memory"


class Subject(Struct):
    """A user or a group, by the name that authentication gives it."""

    kind: Annotated[Literal["User", "Group"], Meta(description="User or Group.")]
    name: Annotated[str, Meta(description="Name of the user or group.", min_length=1)]


class QueueAccess(Struct):
    """Who may submit here, and who may claim what."""

    submitters: Annotated[list[Subject], Meta(description="Who may submit; empty: everyone.")] = []
    max_priority: Annotated[
        int | None, Meta(description="Highest priority that submitters may claim; absent: no cap.")
    ] = None
    non_preemptible: Annotated[
        Literal["Everyone", "Privileged"],
        Meta(description="Who may submit work that is never evicted (it only ever runs within quota)."),
    ] = "Everyone"
    privileged: Annotated[
        list[Subject],
        Meta(description="May submit, claim any priority, and mark work as not preemptible, whatever else is said."),
    ] = []


class Ageing(Struct):
    """How waiting moves work up in the queue's line."""

    seconds_per_point: Annotated[
        int, Meta(description="So long is worth one point of priority.", ge=1, le=1_000_000_000)
    ]
    max_points: Annotated[int, Meta(description="Points that age is worth at most.", ge=1, le=1_000_000_000)]


class QueueSpec(Struct):
    """What a queue is owed, and from whom it inherits."""

    parent: Annotated[str, Meta(description="Queue above this one; empty: a root of the tree.", max_length=253)] = ""
    quota: Annotated[
        Resources,
        Meta(
            description="Owed before any surplus is shared, by resource. Absent: nothing of a GPU resource, "
            "no constraint for other resources."
        ),
    ] = {}
    limit: Annotated[
        Resources, Meta(description="Hard cap on everything that runs below, by resource; absent: none.")
    ] = {}
    weight: Annotated[
        int,
        Meta(description="Claim on surplus among siblings of equal priority; 0: none.", ge=0, le=1_000_000),
    ] = 1
    priority: Annotated[
        int,
        Meta(description="Surplus goes to siblings of higher priority first; never affects quota.",
             ge=-1_000_000_000, le=1_000_000_000),
    ] = 0  # fmt: skip
    borrowing_limit: Annotated[
        Resources,
        Meta(
            description="How much more than its quota may run below, by resource of which it has a quota (GPUs: "
            "without one it is 0); absent: any amount."
        ),
    ] = {}
    lending_limit: Annotated[
        Resources,
        Meta(
            description="How much of its quota others may use while it is idle, by resource; the rest is kept back for "
            "this queue, idle or not. Absent: all of it."
        ),
    ] = {}
    stop_policy: Annotated[
        Literal["None", "Hold", "HoldAndDrain"],
        Meta(
            description="Hold: nothing new starts here or below, what runs stays. HoldAndDrain: what runs and is "
            "preemptible is evicted too."
        ),
    ] = "None"
    user_limit: Annotated[
        Resources,
        Meta(description="Hard cap on what runs below for any one submitter, by resource; absent: none."),
    ] = {}
    ordering: Annotated[
        Literal["BestEffort", "StrictFIFO"],
        Meta(
            description="BestEffort: whoever fits starts, in order of priority and age. StrictFIFO: nobody behind the "
            "head of the line starts while the head cannot."
        ),
    ] = "BestEffort"
    ageing: Annotated[
        Ageing | None, Meta(description="Lets age raise the place in this queue's line; absent: it does not.")
    ] = None
    usage_half_life_seconds: Annotated[
        Positive | None,
        Meta(
            description="Past use counts half after so long: of siblings that otherwise stand equal, the one that used "
            "less lately goes first. Absent: past use does not count."
        ),
    ] = None
    preempt_min_runtime_seconds: Annotated[
        Count | None,
        Meta(
            description="Work below is not preempted before it has run so long, but for what it runs beyond its "
            "minimum. Absent: as the queue above says, at the top 0."
        ),
    ] = None
    reclaim_min_runtime_seconds: Annotated[
        Count | None,
        Meta(description="The same for work that other queues would reclaim. Absent: as the queue above says, or 0."),
    ] = None
    drain_after_seconds: Annotated[
        Count | None,
        Meta(
            description="A job within its fair share that has waited so long gets nodes on which nothing new starts "
            "until it fits, though nobody knows when what runs there ends. Absent: as the queue above says, or never."
        ),
    ] = None
    preemptible_pods: Annotated[
        bool,
        Meta(
            description="true: pods that come here without a Workload may be evicted for others, where their label "
            "heddle.dev/preemptible does not say otherwise."
        ),
    ] = False
    access: Annotated[QueueAccess, Meta(description="Who may submit here, and who may claim what.")] = field(
        default_factory=QueueAccess
    )


class QueueStatus(Struct):
    """What the scheduler last saw."""

    observed_generation: Annotated[int, Meta(description="Generation that this speaks of.")] = 0
    conditions: Annotated[list[Condition], Meta(description="Ready, and why not.")] = []
    usage: Annotated[Resources, Meta(description="In use now, by all below.")] = {}
    fair_share: Annotated[Resources, Meta(description="Share that it is due now, given what all ask for.")] = {}
    pending: Annotated[int, Meta(description="Workloads waiting below.")] = 0
    running: Annotated[int, Meta(description="Workloads running below.")] = 0
    past_usage: Annotated[
        Resources, Meta(description="Average use in which older use counts less (spec.usageHalfLifeSeconds).")
    ] = {}
    past_usage_time: Annotated[str | None, Meta(description="Moment that pastUsage is of (RFC 3339).")] = None


class Queue(Kind):
    """A node of the queue tree: what it is owed (quota), capped at (limit) and due of the surplus (weight)."""

    API_VERSION = GROUP_VERSION
    KIND = "Queue"

    spec: QueueSpec = field(default_factory=QueueSpec)
    status: QueueStatus = field(default_factory=QueueStatus)


QueueName = Annotated[Name, Meta(description="Queue that pays for it.")]
