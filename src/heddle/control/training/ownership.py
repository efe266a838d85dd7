"""How everything of a TrainingJob is known as its own, and goes with it."""

from heddle.api.meta import ObjectMeta, OwnerReference
from heddle.api.trainingjob import TrainingJob

JOB_LABEL = "heddle.dev/training-job"


def owner(job: TrainingJob) -> OwnerReference:
    """Reference that makes everything of a job go with it."""
    return OwnerReference(
        api_version=job.api_version, kind=job.kind, name=job.metadata.name, uid=job.metadata.uid, controller=True
    )


def meta_of(job: TrainingJob, name: str) -> ObjectMeta:
    """Metadata of an object of the job's."""
    return ObjectMeta(
        name=name,
        namespace=job.metadata.namespace,
        labels={JOB_LABEL: job.metadata.name},
        owner_references=[owner(job)],
    )
