"""What a TrainingJob is made of: its Workload, its Service and its pods. Pure: objects to objects."""

import re
from typing import Any

import msgspec

from heddle.api import quantity
from heddle.api.core import GPU_RESOURCE, SCHEDULER_NAME
from heddle.api.meta import ObjectMeta, Resources
from heddle.api.pod import (
    ConfigMapSource,
    Container,
    EmptyDirSource,
    HostPathSource,
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
from heddle.api.trainingjob import JobVolume, Role, TrainingJob
from heddle.api.workload import (
    GPU_MEMORY_ANNOTATION,
    GPU_SHARE_ANNOTATION,
    GROUPS_ANNOTATION,
    POD_GROUP_LABEL,
    POD_SET_LABEL,
    RESTARTS_ANNOTATION,
    USER_ANNOTATION,
    Demands,
    PodSet,
    Workload,
    WorkloadSpec,
)
from heddle.control.training import roles
from heddle.control.training.ownership import JOB_LABEL, meta_of, owner
from heddle.control.training.rendezvous import environment

CONTAINER = "main"
SERVICES = Resource("", "v1", "Service", "services", True)


def _submitter(job: TrainingJob) -> dict[str, str]:
    annotations = job.metadata.annotations
    return {name: annotations[name] for name in (USER_ANNOTATION, GROUPS_ANNOTATION) if name in annotations}


def _pod_set(part: roles.Part) -> PodSet:
    nodes = part.nodes
    return PodSet(
        name=part.role or roles.POD_SET,
        count=nodes.nodes,
        min_count=nodes.min_nodes,
        step=nodes.node_step,
        resizable=nodes.resizable,
        resources=nodes.resources_per_node,
        gpu_memory=nodes.gpu_memory_per_node,
        after=nodes.after if isinstance(nodes, Role) else [],
        **{field.name: getattr(nodes, field.name) for field in msgspec.structs.fields(Demands)},
    )


def workload(job: TrainingJob) -> Workload:
    """What the scheduler places for the job."""
    spec = job.spec
    pod_sets = [_pod_set(part) for part in roles.parts(job)]
    if spec.groups > 1:
        names = (roles.set_of(job, group * spec.nodes) for group in range(spec.groups))
        pod_sets = [msgspec.structs.replace(pod_sets[0], name=name, group=name) for name in names]
    return Workload(
        metadata=msgspec.structs.replace(meta_of(job, job.metadata.name), annotations=_submitter(job)),
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

    Where there are roles it is `JOB-ROLE-INDEX.JOB`.

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
    spec, part = job.spec, roles.part_at(job, index)
    nodes = part.nodes
    whole, share = _split(nodes.resources_per_node)
    annotations = _submitter(job) | ({RESTARTS_ANNOTATION: "OnRequest"} if restarts_in_place else {})
    named = not restarts_in_place and service(job) is not None
    if share:
        annotations[GPU_SHARE_ANNOTATION] = share
    if nodes.gpu_memory_per_node is not None:
        annotations[GPU_MEMORY_ANNOTATION] = str(nodes.gpu_memory_per_node)
    name = roles.pod_name(job, index)
    own = {one.name for one in nodes.env}
    shared = [one for one in spec.env if one.name not in own] if part.role else []
    return Pod(
        metadata=ObjectMeta(
            name=name,
            namespace=job.metadata.namespace,
            labels={
                **spec.pod_labels,
                POD_GROUP_LABEL: job.metadata.name,
                POD_SET_LABEL: roles.set_of(job, index),
                JOB_LABEL: job.metadata.name,
            },
            annotations=annotations,
            owner_references=[owner(job)],
        ),
        spec=PodSpec(
            containers=[
                Container(
                    name=CONTAINER,
                    image=nodes.image or spec.image,
                    command=nodes.command,
                    working_dir=nodes.working_dir or spec.working_dir,
                    env=[*environment(job, part, name), *shared, *nodes.env],
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
            node_selector=nodes.node_selector,
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
