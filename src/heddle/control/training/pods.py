"""What a TrainingJob is made of: its Workload, its Service, its pods and its rendezvous. Pure: objects to objects."""

import re
from collections import Counter
from typing import Any

import msgspec

from heddle.api import quantity
from heddle.api.core import GPU_RESOURCE, SCHEDULER_NAME, ConfigMap
from heddle.api.meta import ObjectMeta, OwnerReference, Resources
from heddle.api.pod import (
    ConfigMapSource,
    Container,
    EmptyDirSource,
    EnvVar,
    EnvVarSource,
    FieldRef,
    HostPathSource,
    KeySelector,
    KeyToPath,
    PersistentVolumeClaimSource,
    Pod,
    PodSpec,
    ResourceRequirements,
    Volume,
    VolumeMount,
)
from heddle.api.registry import Resource
from heddle.api.security import Capabilities, PodSecurityContext, RunAs, SeccompProfile, SecurityContext
from heddle.api.trainingjob import JobVolume, TrainingJob
from heddle.api.workload import (
    GPU_MEMORY_ANNOTATION,
    GPU_SHARE_ANNOTATION,
    GROUPS_ANNOTATION,
    POD_GROUP_LABEL,
    POD_SET_LABEL,
    RESTARTS_ANNOTATION,
    USER_ANNOTATION,
    PodSet,
    Workload,
    WorkloadSpec,
)

POD_SET = "nodes"
"""Pod set of a job with one group; of others each group is one, `group-0` and on."""
JOB_LABEL = "heddle.dev/training-job"
CONTAINER = "main"
SERVICES = Resource("", "v1", "Service", "services", True)


def pod_name(job: TrainingJob, index: int) -> str:
    """Name of the pod with this index."""
    return f"{job.metadata.name}-{index}"


def _set_of(job: TrainingJob, index: int) -> str:
    return POD_SET if job.spec.groups == 1 else f"group-{index // job.spec.nodes}"


def joined(job: TrainingJob, placed: list[Pod]) -> list[Pod]:
    """Those of the pods with a place that make whole groups, or whole steps beyond the minimum: the others wait."""
    spec = job.spec
    if spec.groups > 1:
        there = Counter(pod.metadata.labels.get(POD_SET_LABEL, "") for pod in placed)
        return [pod for pod in placed if there[pod.metadata.labels.get(POD_SET_LABEL, "")] == spec.nodes]
    beyond = max(0, len(placed) - spec.minimum)
    return placed[: spec.minimum + beyond // spec.node_step * spec.node_step]


def rendezvous_name(job: TrainingJob) -> str:
    """Name of the ConfigMap in which the job's processes find each other."""
    return f"{job.metadata.name}-rendezvous"


def owner(job: TrainingJob) -> OwnerReference:
    """Reference that makes everything of a job go with it."""
    return OwnerReference(
        api_version=job.api_version, kind=job.kind, name=job.metadata.name, uid=job.metadata.uid, controller=True
    )


def _submitter(job: TrainingJob) -> dict[str, str]:
    annotations = job.metadata.annotations
    return {name: annotations[name] for name in (USER_ANNOTATION, GROUPS_ANNOTATION) if name in annotations}


def workload(job: TrainingJob) -> Workload:
    """What the scheduler places for the job."""
    spec = job.spec
    first = PodSet(
        name=POD_SET,
        count=spec.nodes,
        min_count=spec.min_nodes,
        step=spec.node_step,
        resizable=spec.resizable,
        resources=spec.resources_per_node,
        gpu_memory=spec.gpu_memory_per_node,
        gpu_models=spec.gpu_models,
        gpu_speeds=spec.gpu_speeds,
        node_selector=spec.node_selector,
        node_affinity=spec.node_affinity,
        pod_affinity=spec.pod_affinity,
        pod_anti_affinity=spec.pod_anti_affinity,
        spread=spec.spread,
        slices=spec.slices,
        exclusive=spec.exclusive,
    )
    pod_sets = [first]
    if spec.groups > 1:
        names = (_set_of(job, group * spec.nodes) for group in range(spec.groups))
        pod_sets = [msgspec.structs.replace(first, name=name, group=name) for name in names]
    return Workload(
        metadata=ObjectMeta(
            name=job.metadata.name,
            namespace=job.metadata.namespace,
            labels={JOB_LABEL: job.metadata.name},
            annotations=_submitter(job),
            owner_references=[owner(job)],
        ),
        spec=WorkloadSpec(
            queue=spec.queue,
            pod_sets=pod_sets,
            min_groups=spec.min_groups if spec.groups > 1 else None,
            priority=spec.priority,
            preemptible=spec.preemptible,
            topology=spec.topology,
            placement=spec.placement,
            separate_gpus=spec.separate_gpus,
            gang_grace_seconds=spec.gang_grace_seconds,
            walltime_seconds=spec.walltime_seconds,
            movable=spec.movable and spec.preemptible and spec.checkpoint is not None,
        ),
    )


def edits(job: TrainingJob, made: Workload) -> dict[str, Any]:
    """What of a workload's spec the job says otherwise by now, as a merge patch: pods stay what they are made of."""
    new, old = (msgspec.to_builtins(spec) for spec in (workload(job).spec, made.spec))
    return {
        name: new.get(name) for name in sorted({*new, *old}) if name != "podSets" and new.get(name) != old.get(name)
    }


def service(job: TrainingJob) -> dict[str, Any] | None:
    """The headless Service by which `JOB-INDEX.JOB` is a pod's name in a cluster's DNS, also before it is ready.

    None where the job's name cannot be a part of such a name. The rendezvous does not need it.
    """
    name = job.metadata.name
    if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name):
        return None
    return {
        "metadata": {
            "name": name,
            "namespace": job.metadata.namespace,
            "labels": {JOB_LABEL: name},
            "ownerReferences": [msgspec.to_builtins(owner(job))],
        },
        "spec": {"clusterIP": "None", "selector": {JOB_LABEL: name}, "publishNotReadyAddresses": True},
    }


def pod(job: TrainingJob, index: int, *, restarts_in_place: bool = True) -> Pod:
    """The pod with this index.

    What changes with the world (ranks, size, address) comes from the rendezvous ConfigMap, which is read whenever a
    container starts. heddle's own nodes restart the processes of a resized job where they are; a kubelet does not, so
    that there a pod is for one world only.
    """
    spec = job.spec
    whole, share = _split(spec.resources_per_node)
    annotations = _submitter(job) | ({RESTARTS_ANNOTATION: "OnRequest"} if restarts_in_place else {})
    named = not restarts_in_place and service(job) is not None
    if share:
        annotations[GPU_SHARE_ANNOTATION] = share
    if spec.gpu_memory_per_node is not None:
        annotations[GPU_MEMORY_ANNOTATION] = str(spec.gpu_memory_per_node)
    name = pod_name(job, index)
    return Pod(
        metadata=ObjectMeta(
            name=name,
            namespace=job.metadata.namespace,
            labels={
                **spec.pod_labels,
                POD_GROUP_LABEL: job.metadata.name,
                POD_SET_LABEL: _set_of(job, index),
                JOB_LABEL: job.metadata.name,
            },
            annotations=annotations,
            owner_references=[owner(job)],
        ),
        spec=PodSpec(
            containers=[
                Container(
                    name=CONTAINER,
                    image=spec.image,
                    command=spec.command,
                    working_dir=spec.working_dir,
                    env=[*_environment(job, name), *spec.env],
                    env_from=spec.env_from,
                    resources=ResourceRequirements(requests=whole, limits=whole),
                    volume_mounts=[_mount(f"volume-{i}", volume) for i, volume in enumerate(spec.volumes)],
                    # the end of its log says why, also once the pod is gone
                    termination_message_policy="" if restarts_in_place else "FallbackToLogsOnError",
                    security_context=_contained(spec.security_context),
                )
            ],
            volumes=[_volume(f"volume-{i}", volume) for i, volume in enumerate(spec.volumes)],
            restart_policy="OnFailure" if restarts_in_place else "Never",
            hostname=name if named else "",
            subdomain=job.metadata.name if named else "",
            scheduler_name=SCHEDULER_NAME,
            node_selector=spec.node_selector,
            tolerations=spec.tolerations,
            termination_grace_period_seconds=spec.termination_grace_period_seconds,
            service_account_name=spec.service_account_name,
            image_pull_secrets=spec.image_pull_secrets,
            security_context=_user(spec.security_context),
        ),
    )


def _user(wish: RunAs | None) -> PodSecurityContext | None:
    if wish is None:
        return None
    return PodSecurityContext(
        run_as_user=wish.run_as_user,
        run_as_group=wish.run_as_group,
        fs_group=wish.fs_group,
        run_as_non_root=wish.run_as_non_root or wish.root_is_out or None,
        seccomp_profile=SeccompProfile(type="RuntimeDefault") if wish.root_is_out else None,
    )


def _contained(wish: RunAs | None) -> SecurityContext | None:
    """Who is not root loses nothing by what Pod Security *restricted* asks for. Root would: its programs could no
    longer write to volumes of other users, nor install packages."""
    if wish is None or not wish.root_is_out:
        return None
    return SecurityContext(allow_privilege_escalation=False, capabilities=Capabilities(drop=["ALL"]))


def _mount(name: str, volume: JobVolume) -> VolumeMount:
    return VolumeMount(name=name, mount_path=volume.mount_path, sub_path=volume.sub_path, read_only=volume.read_only)


def _volume(name: str, volume: JobVolume) -> Volume:
    if volume.claim:
        return Volume(name=name, persistent_volume_claim=PersistentVolumeClaimSource(claim_name=volume.claim))
    if volume.host_path:
        return Volume(name=name, host_path=HostPathSource(path=volume.host_path, type="DirectoryOrCreate"))
    if volume.config_map:
        items = [KeyToPath(key=f.key, path=f.path, mode=0o755 if f.executable else None) for f in volume.files]
        return Volume(name=name, config_map=ConfigMapSource(name=volume.config_map, items=items))
    return Volume(name=name, empty_dir=EmptyDirSource(medium="Memory", size_limit=volume.memory))


def _split(resources: Resources) -> tuple[Resources, str]:
    """Resources of the pod, which are whole, and the share of one GPU as text where one is asked for."""
    asked = resources.get(GPU_RESOURCE)
    if asked is not None and 0 < quantity.milli(asked) < 1000:
        return {k: v for k, v in resources.items() if k != GPU_RESOURCE}, quantity.render(quantity.milli(asked))
    return dict(resources), ""


def _environment(job: TrainingJob, name: str) -> list[EnvVar]:
    """The contract of torchrun (PET_*), of torch.distributed's env:// and of JAX.

    https://docs.pytorch.org/docs/stable/elastic/run.html and jax.distributed.initialize.
    """
    processes = str(job.spec.processes_per_node)

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
    groups = []
    if job.spec.groups > 1:
        groups = [world("HEDDLE_GROUPS", "groups"), world("HEDDLE_GROUP_RANK", f"group-rank.{name}")]
    pod_field = EnvVarSource(field_ref=FieldRef(field_path="metadata.name"))
    return [
        EnvVar(name="HEDDLE_POD", value_from=pod_field),
        *(EnvVar(name=variable, value=value) for variable, value in fixed.items()),
        world("HEDDLE_GENERATION", "generation"),
        world("MASTER_ADDR", "address"),
        world("MASTER_PORT", "port"),
        world("WORLD_SIZE", "processes"),
        world("RANK", f"rank.{name}"),
        world("PET_NNODES", "nodes"),
        world("PET_NODE_RANK", f"node-rank.{name}"),
        world("PET_MASTER_ADDR", "address"),
        world("PET_MASTER_PORT", "port"),
        world("JAX_COORDINATOR_ADDRESS", "coordinator"),
        world("JAX_NUM_PROCESSES", "nodes"),
        world("JAX_PROCESS_ID", f"node-rank.{name}"),
        *groups,
    ]


def rendezvous(
    job: TrainingJob, members: list[Pod], generation: int, address: str, port: int, *, restart: list[str]
) -> ConfigMap:
    """The world of one generation: who is in it, with which rank, and where they meet.

    Without members nobody has a rank, so that processes wait. `restart` names the pods whose processes belong to an
    earlier world (where pods are made anew: with their UIDs); the others start as soon as they have a rank.
    """
    processes = job.spec.processes_per_node
    data = {"generation": str(generation), "members": members_text(members), "restart": ",".join(restart)}
    if members:
        data |= {
            "address": address,
            "port": str(port),
            "coordinator": f"[{address}]:{port}" if ":" in address else f"{address}:{port}",
            "nodes": str(len(members)),
            "processes": str(len(members) * processes),
            "groups": str(max(1, len(members) // job.spec.nodes)),
        }
    for rank, member in enumerate(members):
        data[f"node-rank.{member.metadata.name}"] = str(rank)
        data[f"rank.{member.metadata.name}"] = str(rank * processes)
        data[f"group-rank.{member.metadata.name}"] = str(rank // job.spec.nodes)
    return ConfigMap(
        metadata=ObjectMeta(
            name=rendezvous_name(job),
            namespace=job.metadata.namespace,
            labels={JOB_LABEL: job.metadata.name},
            owner_references=[owner(job)],
        ),
        data=data,
    )


def members_text(members: list[Pod]) -> str:
    """The members of a world, by UID: a pod of the same name that was made anew is another member."""
    return ",".join(f"{p.metadata.name}={p.metadata.uid}" for p in members)


def gpus(job: TrainingJob) -> float:
    """GPUs of one node of the job."""
    asked: Any = job.spec.resources_per_node.get(GPU_RESOURCE, 0)
    return quantity.milli(asked) / 1000
