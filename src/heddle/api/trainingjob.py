"""TrainingJob: a distributed training that heddle schedules, launches, restarts and explains."""

from typing import Annotated, Literal

from msgspec import Meta, field

from heddle.api.company import Company
from heddle.api.meta import Condition, Count, Kind, LocalObjectReference, Positive, Quantity, Resources, Struct
from heddle.api.pod import EnvFromSource, EnvVar, PodToleration
from heddle.api.queue import GROUP_VERSION
from heddle.api.security import RunAs
from heddle.api.workload import GpuSpeeds, NodeAffinity, PlacementStrategy, SliceRule, SpreadRule, TopologyWish

DEFAULT_QUEUE = "default"


class Checkpoint(Struct):
    """Where the training keeps its checkpoints, so that a restart resumes."""

    path: Annotated[str, Meta(description="Directory; given to every process as HEDDLE_CHECKPOINT_DIR.", min_length=1)]


class VolumeFile(Struct, kw_only=True):
    """A key of a ConfigMap, as a file."""

    key: Annotated[str, Meta(description="Key in its data.", min_length=1, max_length=253)]
    path: Annotated[str, Meta(description="File below the mount path.", min_length=1, max_length=512)]
    executable: Annotated[bool, Meta(description="true: it may be run.")] = False


class JobVolume(Struct, kw_only=True):
    """A directory that every pod of the job sees; exactly one of claim, hostPath, configMap and memory says what."""

    mount_path: Annotated[
        str, Meta(description="Where the programs see it: an absolute path.", min_length=1, max_length=512)
    ]
    claim: Annotated[str, Meta(description="PersistentVolumeClaim of the job's namespace.", max_length=253)] = ""
    host_path: Annotated[
        str, Meta(description="Directory of the node, where the namespace allows it.", max_length=512)
    ] = ""
    config_map: Annotated[
        str, Meta(description="ConfigMap of the job's namespace: its files, read only.", max_length=253)
    ] = ""
    files: Annotated[
        list[VolumeFile], Meta(description="Which keys of configMap are which files; empty: all.", max_length=1000)
    ] = []
    memory: Annotated[
        Quantity | None,
        Meta(
            description='Empty, in memory, and at most so large, as "8Gi": for /dev/shm. Counts as the pod\'s memory.'
        ),
    ] = None
    sub_path: Annotated[str, Meta(description="Directory of the volume, in place of its root.", max_length=512)] = ""
    read_only: Annotated[bool, Meta(description="true: programs cannot write there.")] = False


class TrainingJobSpec(Struct):
    """Command, size, queue and what to do when things go wrong."""

    command: Annotated[list[str], Meta(description="Program and arguments of every node.", min_length=1)]
    image: Annotated[str, Meta(description="Container image (embedded mode: see docs/embedded.md).")] = ""
    working_dir: Annotated[str, Meta(description="Directory in which the command runs.")] = ""
    env: Annotated[list[EnvVar], Meta(description="Additional environment.")] = []
    env_from: Annotated[
        list[EnvFromSource],
        Meta(description="ConfigMaps and Secrets of which all keys are environment; env comes before.", max_length=16),
    ] = []
    service_account_name: Annotated[
        str, Meta(description="On a cluster: as which account of its namespace its pods run.", max_length=253)
    ] = ""
    image_pull_secrets: Annotated[
        list[LocalObjectReference],
        Meta(description="On a cluster: Secrets by which its image is pulled.", max_length=16),
    ] = []
    security_context: Annotated[RunAs | None, Meta(description="On a cluster: as whom its programs run.")] = None
    queue: Annotated[str, Meta(description="Queue that pays for it.", min_length=1, max_length=253)] = DEFAULT_QUEUE
    priority: Annotated[
        int, Meta(description="Higher goes first in its queue.", ge=-1_000_000_000, le=1_000_000_000)
    ] = 0
    preemptible: Annotated[bool, Meta(description="false: never evicted for others, and only within quota.")] = True
    nodes: Annotated[int, Meta(description="Nodes (pods) wished for.", ge=1, le=100_000)] = 1
    min_nodes: Annotated[
        Positive | None,
        Meta(description="Elastic: runs with as few as these, restarting from its checkpoint. Absent: nodes."),
    ] = None
    node_step: Annotated[
        Positive,
        Meta(description="Elastic: grows and shrinks by so many nodes at a time; divides nodes - minNodes."),
    ] = 1
    resizable: Annotated[
        bool,
        Meta(description="false: it stays at as many nodes as it starts with, from minNodes on (partial admission)."),
    ] = True
    groups: Annotated[
        int,
        Meta(
            description="Replica groups: so many gangs of `nodes` each, which come and go whole; ranks of a group "
            "follow each other. spread, slices and gpuModels hold in each by itself.",
            ge=1,
            le=64,
        ),
    ] = 1
    min_groups: Annotated[
        Positive | None, Meta(description="Elastic: runs with as few groups as these. Absent: groups.")
    ] = None
    processes_per_node: Annotated[
        int,
        Meta(description="Processes that torchrun starts on each node (PET_NPROC_PER_NODE).", ge=1, le=1024),
    ] = 1
    resources_per_node: Annotated[
        Resources,
        Meta(description='Request of one node; nvidia.com/gpu may be a share of one GPU below 1, as "500m".'),
    ] = {}
    gpu_memory_per_node: Annotated[
        Quantity | None,
        Meta(description='Memory of one GPU that each node uses, as "20Gi"; in place of nvidia.com/gpu.'),
    ] = None
    gpu_models: Annotated[
        list[str],
        Meta(
            description="Models of GPUs that it may use, the best first, named as by the node label "
            "nvidia.com/gpu.product. All its nodes get GPUs of one model. Empty: any GPUs.",
            max_length=16,
        ),
    ] = []
    gpu_speeds: GpuSpeeds = {}
    node_selector: Annotated[dict[str, str], Meta(description="Labels that a node must have.")] = {}
    node_affinity: Annotated[NodeAffinity, Meta(description="Nodes that pods must, or should, be on.")] = field(
        default_factory=NodeAffinity
    )
    pod_labels: Annotated[
        dict[str, str], Meta(description="Labels of its pods, by which others find them, beside heddle's own.")
    ] = {}
    tolerations: Annotated[list[PodToleration], Meta(description="Taints that its pods accept.", max_length=64)] = []
    topology: Annotated[TopologyWish, Meta(description="Where nodes go relative to each other.")] = field(
        default_factory=TopologyWish
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
    separate_gpus: Annotated[
        bool, Meta(description="true: no two of its pods that use a share of a GPU are on the same one.")
    ] = False
    placement: PlacementStrategy = "FragmentationAware"
    restart_policy: Annotated[
        Literal["OnFailure", "Never"], Meta(description="Whether a failed process restarts the job.")
    ] = "OnFailure"
    max_restarts: Annotated[
        int,
        Meta(description="Restarts after failures; being preempted or resized does not count.", ge=0, le=1000),
    ] = 3
    checkpoint: Annotated[Checkpoint | None, Meta(description="Where the training keeps its checkpoints.")] = None
    volumes: Annotated[
        list[JobVolume],
        Meta(description="On a cluster: what its pods mount, such as where checkpoints are kept.", max_length=16),
    ] = []
    walltime_seconds: Annotated[
        Positive | None,
        Meta(description="The job is ended when it has run so long; counted anew after it was evicted. Known ends let "
             "heddle foresee starts, and shorter work run in the gaps before larger work (backfill)."),
    ] = None  # fmt: skip
    movable: Annotated[
        bool,
        Meta(
            description="With a checkpoint: may be stopped and started elsewhere so that others fit. Jobs without one, "
            "or not preemptible, are never moved."
        ),
    ] = True
    gang_grace_seconds: Annotated[
        Count | None,
        Meta(
            description="How long nodes that are left of it wait for replacements of those it lost, before they are "
            "evicted and it starts anew. Absent: as the scheduler is set, which is 60."
        ),
    ] = None
    termination_grace_period_seconds: Annotated[
        int, Meta(description="Between SIGTERM and SIGKILL: time to save a checkpoint.", ge=0, le=86_400)
    ] = 30
    ttl_seconds_after_finished: Annotated[
        Count | None, Meta(description="Deletes the job that long after it ended; absent: kept.")
    ] = None

    @property
    def minimum(self) -> int:
        """`minNodes` with its default."""
        return self.nodes if self.min_nodes is None else self.min_nodes

    @property
    def size(self) -> int:
        """Nodes (pods) of all groups."""
        return self.nodes * self.groups

    @property
    def least(self) -> int:
        """With how many nodes it runs."""
        return self.minimum * (self.groups if self.min_groups is None else self.min_groups)


class TrainingJobStatus(Struct):
    """Where the job stands."""

    observed_generation: Annotated[int, Meta(description="Generation that this speaks of.")] = 0
    phase: Annotated[
        Literal["", "Pending", "Running", "Restarting", "Succeeded", "Failed"],
        Meta(description="Pending, Running, Restarting, Succeeded or Failed."),
    ] = ""
    conditions: Annotated[list[Condition], Meta(description="Running, Complete, Failed.")] = []
    active_nodes: Annotated[int, Meta(description="Nodes of the present rendezvous.")] = 0
    rendezvous: Annotated[int, Meta(description="How often the world was (re)formed.")] = 0
    restarts: Annotated[int, Meta(description="Restarts after failures.")] = 0
    last_restart_time: Annotated[str | None, Meta(description="When it was last restarted after a failure.")] = None
    resizes: Annotated[int, Meta(description="Restarts because nodes came or went.")] = 0
    exit_code: Annotated[int | None, Meta(description="Exit code of the job once it ended.")] = None
    start_time: Annotated[str | None, Meta(description="When it first ran.")] = None
    completion_time: Annotated[str | None, Meta(description="When it ended.")] = None
    checkpoint_time: Annotated[
        str | None, Meta(description="When something was last written below the checkpoint's path.")
    ] = None
    gpu_seconds: Annotated[int, Meta(description="GPU-seconds held so far.", ge=0)] = 0
    accounted_time: Annotated[str | None, Meta(description="Until when gpuSeconds counts.")] = None
    message: Annotated[str, Meta(description="The last news, for people.")] = ""


class TrainingJob(Kind, kw_only=True):
    """A training: command, nodes, GPUs, elasticity, restarts, checkpoint."""

    API_VERSION = GROUP_VERSION
    KIND = "TrainingJob"

    spec: TrainingJobSpec
    status: TrainingJobStatus = field(default_factory=TrainingJobStatus)
