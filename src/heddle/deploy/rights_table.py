"""The document of rights, docs/kubernetes-security.md."""

from collections.abc import Iterable

from heddle.deploy import policies, rights
from heddle.deploy.objects import CONTROLLER
from heddle.deploy.rights import Right
from heddle.deploy.values import NAMESPACE


def _table(given: Iterable[Right]) -> str:
    rows = ["| API group | resources | verbs | why |", "|---|---|---|---|"]
    for right in given:
        group = f"`{right.group}`" if right.group else "core"
        resources = ", ".join(f"`{name}`" for name in right.resources)
        rows.append(f"| {group} | {resources} | {', '.join(right.verbs)} | {right.why} |")
    return "\n".join(rows)


def _refused() -> str:
    rows = ["| verb | resource | where | why |", "|---|---|---|---|"]
    for (verb, resource, namespace), why in rights.REFUSED:
        rows.append(f"| {verb} | `{resource}` | {f'`{namespace}`' if namespace else 'anywhere'} | {why} |")
    return "\n".join(rows)


def _policies() -> str:
    rows = ["| policy | on | refuses, with the remedy |", "|---|---|---|"]
    for resource, rules in policies.RULES.items():
        remedies = dict.fromkeys(remedy for _, remedy in rules)
        rows.append(f"| `heddle-{resource}` | {resource} | {'<br>'.join(remedies)} |")
    return "\n".join(rows)


def page() -> str:
    """The whole document."""
    return f"""# Rights and policies on Kubernetes

Written by `make chart` from `src/heddle/deploy`, as the chart is; tests ask a real API server, with
`kubectl auth can-i`, about every line of the tables.

## What the controller may do

The ServiceAccount `{CONTROLLER}` in `{NAMESPACE}`, in the whole cluster:

{_table(rights.CONTROLLER)}

In its own namespace only:

{_table(rights.CONTROLLER_OWN)}

It runs as user 65532 with no capability, a read-only root file system, the runtime's default seccomp profile and no
privilege escalation; its namespace, where `heddle install` makes it, enforces the Pod Security Standard *restricted*.

What weighs most: it may create pods everywhere, which Kubernetes lets nobody narrow to pods of certain users, so who
takes the controller over can run a pod, with any service account and any Secret that it names, in every namespace whose
policies let it in. And it reads all ConfigMaps, because those of TrainingJobs are in their users' namespaces.

## What must be refused to it

{_refused()}

## What users may do

Whoever has `view`, `edit` or `admin` in a namespace:

{_table(rights.VIEW)}

Whoever has `edit` or `admin` there:

{_table(rights.EDIT)}

Every authenticated user:

{_table(rights.QUEUE_READER)}

And in `{NAMESPACE}`, of the Service `https:heddle:answers` only:

{_table(rights.ASKER)}

The API server's proxy does not tell the controller who asks, so a question carries the asker's own bearer token. It
goes over TLS to the API server and from there over TLS to the controller; the proxy does not verify the controller's
certificate, which is self-made, so who can put a machine between API server and pods could read it. The controller has
the token looked at (TokenReview), keeps it nowhere, and asks for each question what the user may do
(SubjectAccessReview):

| question | needs | what is left out |
|---|---|---|
| `heddle explain` | `get` of the workload, or of the pod that is named | names where one may not `get` workloads |
| `heddle run --dry-run` | `create` of trainingjobs in the namespace (of a queue: `update` of it) | the same |
| `heddle snapshot` | `get` of queues, `list` of workloads in all namespaces | nothing: a simulation needs it all |

Queues, topologies and licences are written by cluster administrators, Workloads by the controller. The value
`userRoles.enabled=false` leaves these rights out.

## Policies

No webhook of heddle stands in anybody's way: when heddle is down, pods, jobs and everything else are created as before.
Admission policies run inside the API server and match heddle's own kinds only.

{_policies()}

The CustomResourceDefinitions themselves refuse to change what pods are already made of. What concerns several objects
(a queue that does not exist, a topology without nodes) becomes a condition of the object instead.
An object that was stored before a policy came can still be labelled and deleted.

### Who submitted a job

Queues say who may use them (`spec.access`), so a job must say truly who submitted it, in its annotations
`heddle.dev/submitted-by` and `heddle.dev/submitted-by-groups`:

- `heddle-submitter` ({policies.MUTATING}, Kubernetes 1.36 and later) writes them when a TrainingJob or a Workload is
  created.
- `heddle-submitter` (ValidatingAdmissionPolicy) refuses every label and annotation `heddle.dev/...` on them that is not
  the submitter's own name, and every later change.
- Who has the right `update` on `trainingjobs/submitter` or `workloads/submitter` may write them: the controller, which
  hands them on from jobs to Workloads, and cluster administrators, who restore backups.

Before Kubernetes 1.36 nothing writes them. A job without them counts as nobody's, and `spec.access` does not hold it
back: there, queues cannot be kept from anyone who may create TrainingJobs.
"""
