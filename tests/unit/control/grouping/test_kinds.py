"""The table of kinds whose pods belong together."""

from typing import Any

import msgspec
import pytest

from heddle.api.pod import Pod
from heddle.control.grouping.kinds import known, read

KINDS = {kind.kind: kind for kind in known()}
TRAINING = "training.kubeflow.org/"


def pod(**labels: str) -> Pod:
    return msgspec.convert({"metadata": {"name": "p", "labels": labels}}, Pod)


@pytest.mark.parametrize(
    ("kind", "spec", "counts"),
    [
        ("Job", {"parallelism": 4, "completions": 4}, {"pods": 4}),
        ("Job", {"parallelism": 8, "completions": 3}, {"pods": 3}),
        ("Job", {}, {"pods": 1}),
        (
            "JobSet",
            {
                "replicatedJobs": [
                    {"name": "leader", "template": {"spec": {"parallelism": 1}}},
                    {"name": "workers", "replicas": 2, "template": {"spec": {"parallelism": 4}}},
                    {"name": "off", "replicas": 0, "template": {"spec": {}}},
                ]
            },
            {"leader": 1, "workers": 8},
        ),
        ("PyTorchJob", {"pytorchReplicaSpecs": {"Master": {}, "Worker": {"replicas": 3}}}, {"master": 1, "worker": 3}),
        ("MPIJob", {"mpiReplicaSpecs": {"Launcher": {}, "Worker": {"replicas": 2}}}, {"launcher": 1, "worker": 2}),
        (
            "RayCluster",
            {"workerGroupSpecs": [{"groupName": "gpu", "replicas": 2, "numOfHosts": 4}]},
            {"headgroup": 1, "gpu": 8},
        ),
        ("LeaderWorkerSet", {"leaderWorkerTemplate": {"size": 5}}, {"pods": 5}),
    ],
)
def test_how_many_pods_belong_together(kind: str, spec: dict[str, Any], counts: dict[str, int]) -> None:
    assert KINDS[kind].counts({"spec": spec}) == counts


def test_only_indexed_jobs_start_together() -> None:
    assert KINDS["Job"].together({"spec": {"completionMode": "Indexed"}})
    assert not KINDS["Job"].together({"spec": {}})


def test_who_made_a_pod() -> None:
    def owner(**labels: str) -> str:
        return next(kind.kind for kind in known() if kind.owns(pod(**labels)))

    job = {"batch.kubernetes.io/job-name": "a"}
    assert owner(**job) == "Job"
    assert owner(**job, **{"jobset.sigs.k8s.io/jobset-name": "a"}) == "JobSet"
    assert owner(**{f"{TRAINING}job-name": "a", f"{TRAINING}operator-name": "mpi-operator"}) == "MPIJob"
    assert owner(**{f"{TRAINING}job-name": "a", f"{TRAINING}operator-name": "pytorchjob-controller"}) == "PyTorchJob"
    assert KINDS["PyTorchJob"].part(pod(**{f"{TRAINING}replica-type": "Worker"})) == "worker"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[[kind]\n", "table of kinds"),
        ('[[kind]]\ngroup = "a"\nversion = "v1"\nkind = "A"\nplural = "as"\n', "name_label"),
        ('[[kind]]\ngroup = "a"\nversion = "v1"\nkind = "A"\nplural = "as"\nname_label = "a"\nlabel = "b"\n', "label"),
        ('[[kind]]\ngroup = "a"\nversion = "v1"\nkind = 1\nplural = "as"\nname_label = "a"\n', r"\$\.kind\[0\]\.kind"),
    ],
)
def test_a_bad_table_is_refused_by_the_name_of_the_field(text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        read(text)
