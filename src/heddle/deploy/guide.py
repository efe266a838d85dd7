"""The guide to installing, docs/kubernetes-install.md."""

from heddle.api.core import SCHEDULER_NAME, SCHEDULER_TAINT
from heddle.deploy import chart
from heddle.deploy.objects import CONTROLLER, DEFAULT_QUEUE, SERVICE
from heddle.deploy.values import NAMESPACE


def page() -> str:
    """The whole document."""
    return f"""# heddle on Kubernetes: install, change, remove

Written by `make chart` from `src/heddle/deploy`. Needs Kubernetes 1.30 or later; 1.36 for queues that keep users out
([why](kubernetes-security.md#who-submitted-a-job)). Rights and policies are told in
[kubernetes-security.md](kubernetes-security.md).

There are two ways to the same objects. Use one of them for one cluster; each leaves alone what the other made.

## With heddle

```
heddle install --dry-run           # the plan: each object, create / change / delete / unchanged
heddle install                     # the plan, a question, the installation
```

It needs a cluster administrator's kubeconfig (`--kubeconfig`, else `$KUBECONFIG`, else `~/.kube/config`; `--context`)
and no helm. The plan is made by server-side dry runs, so it says what the API server would really change, with the
fields. `--yes` skips the question; without a terminal nothing is done unless it is given.

Change values by `--set name=value` and `--values FILE`, as with helm. Every run states all values anew: what is not
given is back at its default. Again with the same values it changes nothing. An upgrade is `heddle install` of a newer
heddle: it changes what differs, removes what an earlier heddle left, and never touches users' objects.

```
heddle install --uninstall               # everything, users' Queues and TrainingJobs too; says how many
heddle install --uninstall --keep-crds   # the controller only
```

With `--keep-crds` the definitions stay with all users' objects, and so does the namespace, where the record of use is.
The next installation takes them up.

## With Helm

```
helm install heddle deploy/helm/heddle --namespace {NAMESPACE} --create-namespace
helm upgrade heddle deploy/helm/heddle --namespace {NAMESPACE} --reset-then-reuse-values --set replicas=3
helm uninstall heddle --namespace {NAMESPACE} --wait
```

Release and namespace have these names and no others: there is one heddle in a cluster. `helm upgrade` brings new
definitions too, and `helm uninstall` removes them **with all Queues and TrainingJobs**, unless `crds.keep=true` was set
by an upgrade or the installation before. Helm leaves the namespace; `kubectl delete namespace {NAMESPACE}` removes
it, and with it the leases and the record of use that the controller made there.

## What there is afterwards

| object | what for |
|---|---|
| Deployment `{CONTROLLER}` | `heddle controller`, twice: one leads, the other takes over when it is gone |
| Service `{SERVICE}` | port 80: `/metrics`, `/healthz`, `/readyz`; port 443: answers to `heddle explain` and its like |
| PodDisruptionBudget `{CONTROLLER}` | a drain stops one at a time |
| ServiceAccount, Role, ClusterRole `{CONTROLLER}` | [its rights](kubernetes-security.md) |
| ClusterRoles `heddle-view`, `heddle-edit`, `heddle-queue-reader`, Role `heddle-asker` | users' rights |
| ValidatingAdmissionPolicies, MutatingAdmissionPolicy `heddle-...` | [policies](kubernetes-security.md#policies) |
| Queue `{DEFAULT_QUEUE}` | where jobs wait that name no queue |

For some five seconds after Helm made the definitions for the first time the API server answers new jobs by *Resource
kind not found*: its admission learns of kinds that late. `heddle install` waits for it.

Where a platform lets no pods of the class `system-cluster-critical` into namespaces but its own (GKE does, without a
ResourceQuota that allows it), set `priorityClassName` to a class of yours.

Look whether it runs:

```
kubectl -n {NAMESPACE} rollout status deployment/{CONTROLLER}
kubectl get queues
```

## GPU nodes have one scheduler

heddle counts what other schedulers place, but two that place GPU pods at once can promise the same GPUs. So keep others
away from the GPU nodes by the taint that heddle alone does not mind (its value is `--scheduler-name`):

```
kubectl taint node -l nvidia.com/gpu.present=true {SCHEDULER_TAINT}={SCHEDULER_NAME}:NoSchedule
kubectl taint node -l nvidia.com/gpu.present=true {SCHEDULER_TAINT}-      # takes it back
```

heddle's own pods need no toleration. DaemonSets that belong on these nodes (device plugin, exporters, logs) need
`{{key: {SCHEDULER_TAINT}, operator: Exists}}`. Nodes that an autoscaler makes get the taint from their pool's template.
The controller taints nothing itself: it has no right to change nodes.

## Values

{chart.values_table()}

The chart's `values.schema.json` and `heddle install` refuse names that are not in this table.
"""
