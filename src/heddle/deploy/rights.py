"""Rights: what the controller and people may do, each with the reason; least rights, no Secrets."""

from dataclasses import dataclass
from typing import Any

from heddle.api.queue import GROUP_VERSION

_GROUP = GROUP_VERSION.split("/")[0]
READ = ("get", "list", "watch")


@dataclass(frozen=True, slots=True)
class Right:
    """Verbs on resources of one API group, and why they are needed."""

    group: str
    resources: tuple[str, ...]
    verbs: tuple[str, ...]
    why: str
    names: tuple[str, ...] = ()
    """Only of these objects; empty: of all."""

    @property
    def rule(self) -> dict[str, Any]:
        """As a rule of a Role or ClusterRole."""
        rule = {"apiGroups": [self.group], "resources": list(self.resources), "verbs": list(self.verbs)}
        return rule | ({"resourceNames": list(self.names)} if self.names else {})


CONTROLLER: tuple[Right, ...] = (
    Right("", ("nodes", "namespaces"), READ, "What there is to place on, and for whom."),
    Right("", ("pods",), (*READ, "create", "patch", "delete"), "To see what runs; to make, restart and end the pods of "
          "TrainingJobs."),
    Right("", ("pods/binding",), ("create",), "To place pods."),
    Right("", ("pods/eviction",), ("create",), "To preempt, within PodDisruptionBudgets."),
    Right("", ("pods/status",), ("patch",), "To say on a pod why it waits."),
    Right("", ("configmaps",), (*READ, "create", "patch"), "Rendezvous of TrainingJobs (rank, world size, address), "
          "in their namespaces, and the record of use."),
    Right("", ("services",), ("get", "create"), "The headless Service of a TrainingJob, that names its pods in DNS."),
    Right("", ("events",), ("create", "patch"), "To tell what was done."),
    Right("", ("persistentvolumes", "persistentvolumeclaims"), (*READ, "patch"), "Pods go where their volumes can be; "
          "to bring claims that wait for a pod's node together with a volume."),
    Right("storage.k8s.io", ("storageclasses", "csidrivers", "csistoragecapacities"), READ,
          "Which claims wait for a pod's node, and where volumes can be made for them."),
    Right("storage.k8s.io", ("csinodes", "volumeattachments"), READ, "How many volumes a node can attach, and has."),
    Right("resource.k8s.io", ("resourceslices", "resourceclaims"), READ, "Devices, and who has them."),
    Right("policy", ("poddisruptionbudgets",), READ, "Victims are chosen so that budgets hold."),
    Right("scheduling.k8s.io", ("priorityclasses",), READ, "Priorities of foreign pods."),
    Right("apps", ("deployments", "replicasets", "statefulsets"), READ, "Pods of one owner are one workload."),
    Right("batch", ("jobs",), READ, "The same."),
    Right("jobset.x-k8s.io", ("jobsets",), READ, "The same."),
    Right("kubeflow.org", ("mpijobs", "pytorchjobs"), READ, "The same."),
    Right("trainer.kubeflow.org", ("trainjobs",), READ, "The same."),
    Right("ray.io", ("rayclusters", "rayjobs"), READ, "The same."),
    Right("leaderworkerset.x-k8s.io", ("leaderworkersets",), READ, "The same."),
    Right(_GROUP, ("queues", "topologies", "licenses"), READ, "What users ask for."),
    Right(_GROUP, ("trainingjobs",), (*READ, "delete"), "The same; and to collect jobs that ended, as they ask."),
    Right(_GROUP, ("trainingjobs/finalizers",), ("update",), "To own what is made for a job."),
    Right(_GROUP, ("workloads",), (*READ, "create", "patch", "delete"), "What is scheduled as one."),
    Right(_GROUP, ("workloads/status", "queues/status", "trainingjobs/status"), ("patch",), "To say what came of it."),
    Right(_GROUP, ("workloads/submitter",), ("update",), "To hand on to a Workload who submitted its job "
          "(a right that the policy heddle-submitter asks for, not a resource)."),
    Right("authorization.k8s.io", ("subjectaccessreviews",), ("create",), "To ask what a submitter may do, and "
          "who asks `heddle explain`."),
    Right("authentication.k8s.io", ("tokenreviews",), ("create",), "To know who asks `heddle explain` and its like."),
)  # fmt: skip
"""In the whole cluster."""

CONTROLLER_OWN: tuple[Right, ...] = (
    Right("coordination.k8s.io", ("leases",), ("get", "create", "patch"), "Which of the controllers leads."),
)
"""In the controller's own namespace only."""

VIEW: tuple[Right, ...] = (
    Right(_GROUP, ("trainingjobs", "workloads"), READ, "Jobs, and why they wait."),
)  # fmt: skip
"""Added to the cluster roles `view`, `edit` and `admin`: inside the namespaces where somebody has them."""

EDIT: tuple[Right, ...] = (
    Right(_GROUP, ("trainingjobs",), ("create", "update", "patch", "delete", "deletecollection"), "To run jobs."),
)
"""Added to the cluster roles `edit` and `admin`."""

QUEUE_READER: tuple[Right, ...] = (
    Right(_GROUP, ("queues", "topologies", "licenses"), READ, "Every user may see what a job can ask for."),
)
"""For every authenticated user."""

ASKER: tuple[Right, ...] = (
    Right("", ("services/proxy",), ("create",), "To put questions to the controller (`heddle explain`), "
          "which asks the API server what the asker may know.", names=("https:heddle:answers",)),
)  # fmt: skip
"""For every authenticated user, in the controller's namespace."""

Question = tuple[str, str, str]
"""Verb, resource (`pods/exec`, `trainingjobs.heddle.dev`), namespace ("" = all, or of none)."""

REFUSED: tuple[tuple[Question, str], ...] = (
    (("get", "secrets", ""), "no secret of the cluster is heddle's business"),
    (("list", "secrets", "heddle-system"), "nor one of its own namespace"),
    (("create", "serviceaccounts/token", "heddle-system"), "it makes no identities"),
    (("impersonate", "users", ""), "it acts as itself only"),
    (("update", "nodes", ""), "nodes belong to the kubelet and to administrators"),
    (("patch", "nodes/status", ""), "the same"),
    (("delete", "nodes", ""), "the same"),
    (("create", "nodes/proxy", ""), "it never talks to kubelets"),
    (("create", "pods/exec", ""), "it enters no container"),
    (("create", "pods/attach", ""), "the same"),
    (("create", "pods/portforward", ""), "the same"),
    (("get", "pods/log", ""), "it reads no output"),
    (("update", "pods", ""), "it patches; it replaces nothing"),
    (("delete", "deployments.apps", ""), "work of others is evicted pod by pod, never deleted"),
    (("patch", "jobs.batch", ""), "the same"),
    (("patch", "services", ""), "it makes those of its jobs, and changes none"),
    (("delete", "services", ""), "the garbage collector deletes those of a job"),
    (("delete", "configmaps", ""), "the garbage collector deletes those of a job"),
    (("delete", "persistentvolumeclaims", ""), "data outlives jobs"),
    (("delete", "persistentvolumes", ""), "the same"),
    (("create", "persistentvolumes", ""), "volumes are made by provisioners and people"),
    (("patch", "persistentvolumeclaims/status", ""), "the volume controller says what is bound"),
    (("create", "volumeattachments.storage.k8s.io", ""), "the attach-detach controller attaches"),
    (("delete", "volumeattachments.storage.k8s.io", ""), "and detaches"),
    (("patch", "csinodes.storage.k8s.io", ""), "drivers say what a node can attach"),
    (("create", "leases.coordination.k8s.io", "default"), "leases elsewhere are not its own"),
    (("patch", "leases.coordination.k8s.io", "kube-system"), "the same"),
    (("delete", "leases.coordination.k8s.io", "heddle-system"), "a leader gives up, it deletes nothing"),
    (("create", "queues.heddle.dev", ""), "who is owed what, people decide"),
    (("patch", "queues.heddle.dev", ""), "the same"),
    (("create", "trainingjobs.heddle.dev", ""), "jobs are people's"),
    (("create", "clusterroles.rbac.authorization.k8s.io", ""), "it grants nothing"),
    (("patch", "clusterrolebindings.rbac.authorization.k8s.io", ""), "the same"),
    (("create", "customresourcedefinitions.apiextensions.k8s.io", ""), "the installation does that"),
    (("delete", "poddisruptionbudgets.policy", ""), "budgets hold for heddle too"),
    (("patch", "resourceclaims.resource.k8s.io", ""), "claims are read, not written"),
    (("create", "validatingadmissionpolicies.admissionregistration.k8s.io", ""), "it changes no policy"),
)  # fmt: skip
"""What must be refused to the controller, and why."""
