"""The world of a TrainingJob: who is in it, with which rank, and where they meet; and how programs are told.

Each role of a job is a world of its own, with ranks from 0 and a meeting point at its first node, and knows the hosts
of the roles that start with it or before it.
"""

from collections.abc import Callable, Sequence

from heddle.api.core import ConfigMap
from heddle.api.pod import EnvVar, EnvVarSource, FieldRef, KeySelector, Pod
from heddle.api.trainingjob import TrainingJob
from heddle.control.training.ownership import meta_of
from heddle.control.training.roles import Part, of_part, parts

Meet = Callable[[Pod], tuple[str, int]]
"""Address of a pod, and a port at which it may listen for its peers."""


def rendezvous_name(job: TrainingJob) -> str:
    """Name of the ConfigMap in which the job's processes find each other."""
    return f"{job.metadata.name}-rendezvous"


def members_text(members: Sequence[Pod]) -> str:
    """The members of a world, by UID: a pod of the same name that was made anew is another member."""
    return ",".join(f"{p.metadata.name}={p.metadata.uid}" for p in members)


def _key(name: str, part: Part) -> str:
    return f"{name}.{part.role}" if part.role else name


def _variable(stem: str, role: str) -> str:
    return f"{stem}_{role.upper().replace('-', '_')}"


def environment(job: TrainingJob, part: Part, name: str) -> list[EnvVar]:
    """The contract of torchrun (PET_*), of torch.distributed's env:// and of JAX, for the pod of this name.

    https://docs.pytorch.org/docs/stable/elastic/run.html and jax.distributed.initialize.
    """
    processes = str(part.nodes.processes_per_node)

    def world(variable: str, key: str) -> EnvVar:
        ref = KeySelector(name=rendezvous_name(job), key=key)
        return EnvVar(name=variable, value_from=EnvVarSource(config_map_key_ref=ref))

    fixed = {
        "PET_NPROC_PER_NODE": processes,
        "LOCAL_WORLD_SIZE": processes,
        "LOCAL_RANK": "0",
        "PET_RDZV_ID": job.metadata.uid,
        "HEDDLE_JOB": job.metadata.name,
    }
    if job.spec.checkpoint:
        fixed["HEDDLE_CHECKPOINT_DIR"] = job.spec.checkpoint.path
    more = []
    if job.spec.groups > 1:
        more = [world("HEDDLE_GROUPS", "groups"), world("HEDDLE_GROUP_RANK", f"group-rank.{name}")]
    if part.role:
        fixed["HEDDLE_ROLE"] = part.role
        for other in parts(job):
            if other.stage <= part.stage:
                more.append(world(_variable("HEDDLE_HOSTS", other.role), _key("hosts", other)))
                more.append(world(_variable("HEDDLE_ADDRESS", other.role), _key("coordinator", other)))
    pod_field = EnvVarSource(field_ref=FieldRef(field_path="metadata.name"))
    return [
        EnvVar(name="HEDDLE_POD", value_from=pod_field),
        *(EnvVar(name=variable, value=value) for variable, value in fixed.items()),
        world("HEDDLE_GENERATION", "generation"),
        world("MASTER_ADDR", _key("address", part)),
        world("MASTER_PORT", _key("port", part)),
        world("WORLD_SIZE", _key("processes", part)),
        world("RANK", f"rank.{name}"),
        world("PET_NNODES", _key("nodes", part)),
        world("PET_NODE_RANK", f"node-rank.{name}"),
        world("PET_MASTER_ADDR", _key("address", part)),
        world("PET_MASTER_PORT", _key("port", part)),
        world("JAX_COORDINATOR_ADDRESS", _key("coordinator", part)),
        world("JAX_NUM_PROCESSES", _key("nodes", part)),
        world("JAX_PROCESS_ID", f"node-rank.{name}"),
        *more,
    ]


def rendezvous(
    job: TrainingJob, members: list[Pod], generation: int, meet: Meet, *, restart: Sequence[str]
) -> ConfigMap:
    """The world of one generation.

    Without members nobody has a rank, so that processes wait. `restart` names the pods whose processes belong to an
    earlier world (where pods are made anew: with their UIDs); the others start as soon as they have a rank.
    """
    data = {"generation": str(generation), "members": members_text(members), "restart": ",".join(restart)}
    for part in parts(job):
        data |= _world_of(job, part, of_part(part, members), meet)
    return ConfigMap(metadata=meta_of(job, rendezvous_name(job)), data=data)


def extension(job: TrainingJob, before: ConfigMap, members: list[Pod], meet: Meet) -> dict[str, str]:
    """What is to be added to a world so that parts which start later are in it too; those in it stay as they are."""
    data = {"members": members_text(members)}
    for part in parts(job):
        if _key("nodes", part) not in before.data:
            data |= _world_of(job, part, of_part(part, members), meet)
    return data


def _world_of(job: TrainingJob, part: Part, members: list[Pod], meet: Meet) -> dict[str, str]:
    if not members:
        return {}
    processes = part.nodes.processes_per_node
    address, port = meet(members[0])
    said = {
        "address": address,
        "port": str(port),
        "coordinator": f"[{address}]:{port}" if ":" in address else f"{address}:{port}",
        "nodes": str(len(members)),
        "processes": str(len(members) * processes),
    }
    if part.role:
        said["hosts"] = ",".join([address, *(meet(member)[0] for member in members[1:])])
    else:
        said["groups"] = str(max(1, len(members) // job.spec.nodes))
    data = {_key(name, part): value for name, value in said.items()}
    for rank, member in enumerate(members):
        data[f"node-rank.{member.metadata.name}"] = str(rank)
        data[f"rank.{member.metadata.name}"] = str(rank * processes)
        if not part.role:
            data[f"group-rank.{member.metadata.name}"] = str(rank // job.spec.nodes)
    return data
