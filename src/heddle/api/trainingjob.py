"""TrainingJob: a distributed training that heddle schedules, launches, restarts and explains."""

from collections.abc import Sequence
from typing import Annotated, Literal

from msgspec import Meta, field

from heddle.api.meta import Condition, Count, Kind, LocalObjectReference, Positive, Quantity, Resources, Struct
from heddle.api.pod import EnvFromSource, EnvVar, PodToleration
from heddle.api.queue import GROUP_VERSION
from heddle.api.security import RunAs
from heddle.api.workload import Demands, GangGrace, PlacementStrategy, Preemptible, Priority, SeparateGpus, TopologyWish

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


class NodeSet(Demands, kw_only=True):
    """Nodes that run the same program: how many, and what each of them is."""

    command: Annotated[list[str], Meta(description="Program and arguments of every node.")] = []
    image: Annotated[str, Meta(description="Container image (embedded mode: see docs/embedded.md).")] = ""
    working_dir: Annotated[str, Meta(description="Directory in which the command runs.")] = ""
    env: Annotated[list[EnvVar], Meta(description="Additional environment.")] = []
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

    @property
    def minimum(self) -> int:
        """`minNodes` with its default."""
        return self.nodes if self.min_nodes is None else self.min_nodes


class Role(NodeSet, kw_only=True):
    """Nodes of a job that have a part of their own: launcher, workers, parameter servers, evaluator, data loaders."""

    name: Annotated[
        str,
        Meta(
            description="Unique in the job; its pods are JOB-NAME-INDEX.",
            max_length=30,
            pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        ),
    ]
    after: Annotated[
        list[str],
        Meta(
            description="Roles of which as many nodes as they need must run before the programs of this one start; "
            "its places are held until then.",
            max_length=15,
        ),
    ] = []


class SuccessPolicy(Struct):
    """When a job of several roles has succeeded."""

    roles: Annotated[
        list[str],
        Meta(
            description="Once all nodes of these have succeeded; what still runs of the others is then stopped.",
            min_length=1,
            max_length=16,
        ),
    ]


class TrainingJobSpec(NodeSet, kw_only=True):
    """Command, size, queue and what to do when things go wrong."""

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
    priority: Priority = 0
    preemptible: Preemptible = True
    roles: Annotated[
        list[Role],
        Meta(
            description="Nodes with parts of their own, all of them one gang; in place of command, nodes and what else "
            "is said of nodes. image, workingDir and env hold for those that say nothing else.",
            max_length=16,
        ),
    ] = []
    success_policy: Annotated[
        SuccessPolicy | None, Meta(description="With roles: which of them decide that it has succeeded. Absent: all.")
    ] = None
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
    pod_labels: Annotated[
        dict[str, str], Meta(description="Labels of its pods, by which others find them, beside heddle's own.")
    ] = {}
    tolerations: Annotated[list[PodToleration], Meta(description="Taints that its pods accept.", max_length=64)] = []
    topology: Annotated[TopologyWish, Meta(description="Where nodes go relative to each other.")] = field(
        default_factory=TopologyWish
    )
    separate_gpus: SeparateGpus = False
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
    gang_grace_seconds: GangGrace | None = None
    termination_grace_period_seconds: Annotated[
        int, Meta(description="Between SIGTERM and SIGKILL: time to save a checkpoint.", ge=0, le=86_400)
    ] = 30
    ttl_seconds_after_finished: Annotated[
        Count | None, Meta(description="Deletes the job that long after it ended; absent: kept.")
    ] = None

    @property
    def node_sets(self) -> Sequence[NodeSet]:
        """Its roles, or the job itself where all nodes are alike."""
        return self.roles or [self]

    @property
    def size(self) -> int:
        """Nodes (pods) of all roles and groups."""
        return sum(one.nodes for one in self.node_sets) * self.groups


class TrainingJobStatus(Struct):
    """Where the job stands."""

    observed_generation: Annotated[int, Meta(description="Generation that this speaks of.")] = 0
    phase: Annotated[
        Literal["", "Pending", "Running", "Restarting", "Succeeded", "Failed"],
        Meta(description="Pending, Running, Restarting, Succeeded or Failed."),
    ] = ""
    conditions: Annotated[list[Condition], Meta(description="Running, Complete, Failed.")] = []
    nodes: Annotated[int, Meta(description="Nodes wished for, of all roles and groups.")] = 0
    active_nodes: Annotated[int, Meta(description="Nodes of the present rendezvous.")] = 0
    active_by_role: Annotated[dict[str, int], Meta(description="The same by role.")] = {}
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
