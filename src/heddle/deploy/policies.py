"""Admission policies: what the API server refuses by itself, in CEL, of heddle's own kinds only.

They say of one object what `heddle.api.validate` and `heddle.api.admission` say in embedded mode and the schema of a
CustomResourceDefinition cannot: its rules know neither the user nor, within their cost bounds, unbounded lists. Nothing
of heddle runs for it, and no pod is ever created through it.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from heddle.api.core import GPU_PRODUCT_LABEL, GPU_RESOURCE
from heddle.api.license import LICENSE_PREFIX
from heddle.api.mig import MIG_PREFIX, RESOURCE_PATTERN
from heddle.api.queue import GPU_MODEL_PREFIX, GROUP_VERSION, HUGEPAGES, OWN_RESOURCES, RESOURCE_REMEDY
from heddle.api.rules import LONGEST_NAMES, SHARED_BY_ROLES
from heddle.api.trainingjob import NodeSet
from heddle.api.workload import GROUPS_ANNOTATION, USER_ANNOTATION

Object = dict[str, Any]


class Rule(NamedTuple):
    """A CEL expression that must hold, and what to write instead where it does not."""

    expression: str
    remedy: str


_GROUP, _VERSION = GROUP_VERSION.split("/")
_API = "admissionregistration.k8s.io/v1"
MUTATING = "MutatingAdmissionPolicy"
"""Served since Kubernetes 1.36; where it is not, nothing records who submitted a job (docs/kubernetes-security.md)."""


def _number(amount: str) -> str:
    return f"quantity(string({amount})).asApproximateFloat()"


def _whole_licences(amounts: str) -> Rule:
    return Rule(
        f"!has({amounts}) || {amounts}.all(r, !r.startsWith('{LICENSE_PREFIX}') || (r != '{LICENSE_PREFIX}' && "
        f"{_number(f'{amounts}[r]')} == double(int({_number(f'{amounts}[r]')}))))",
        f"{amounts}: give a whole number of licences, each as {LICENSE_PREFIX}<License>",
    )


_VALUES = "(has(e.values) ? e.values.size() : 0)"
_SOUND = (
    f"e.operator in ['Gt', 'Lt'] ? {_VALUES} == 1 && e.values[0].matches('^[-+]?[0-9]{{1,18}}$') : "
    f"(e.operator in ['In', 'NotIn'] ? {_VALUES} > 0 : {_VALUES} == 0)"
)


_INSTANCES = "of MIG instances, which the kubelet picks, pin the model with nodeSelector"


def _pod_set(at: str, resources: str, memory: str, step: str, count: str, least: str) -> Iterable[Rule]:
    """What holds of a set of pods, be it a TrainingJob's or one of a Workload's."""
    amounts, share = f"{at}.{resources}", f"{at}.{resources}['{GPU_RESOURCE}']"
    asks = f"(has({amounts}) && '{GPU_RESOURCE}' in {amounts})"
    minimum = f"(has({at}.{least}) ? {at}.{least} : {at}.{count})"
    elastic = f"({at}.{count} - {minimum})"
    yield _whole_licences(amounts)
    yield Rule(
        f"!has({amounts}) || {amounts}.all(r, !r.startsWith('{GPU_MODEL_PREFIX}'))",
        f"{resources}: ask for {GPU_RESOURCE} and pin the model with nodeSelector {GPU_PRODUCT_LABEL}",
    )
    yield Rule(
        f"!has({amounts}) || {amounts}.all(r, !r.startsWith('{MIG_PREFIX}') || "
        f"{_number(f'{amounts}[r]')} == double(int({_number(f'{amounts}[r]')})))",
        f"{resources}: give a whole number of MIG instances",
    )
    yield Rule(
        f"!{asks} || {_number(share)} <= 1.0 || {_number(share)} == double(int({_number(share)}))",
        f"{resources}: give a share of one GPU below 1, or a whole number of GPUs",
    )
    yield Rule(
        f"!has({at}.{memory}) || {_number(f'{at}.{memory}')} >= 1048576.0",
        f'{memory}: give 1Mi or more, for instance "20Gi"',
    )
    yield Rule(
        f"!has({at}.{memory}) || !{asks}",
        f"{memory}: give this or {GPU_RESOURCE}, not both: it is a share of one GPU by itself",
    )
    yield Rule(
        f"!has({at}.gpuModels) || {at}.gpuModels.all(m, m.size() <= 63 && "
        f"m.matches('^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$') && {at}.gpuModels.exists_one(n, n == m))",
        "gpuModels: name each model once, as the node label does: NVIDIA-H100-80GB-HBM3",
    )
    yield Rule(
        f"!has({at}.gpuModels) || {at}.gpuModels.size() == 0 || has({at}.{memory}) || "
        f"({asks} && {_number(share)} > 0.0)",
        f"gpuModels: ask for GPUs too, with {GPU_RESOURCE} or by memory; {_INSTANCES}",
    )
    yield Rule(
        f"!has({at}.gpuModels) || {at}.gpuModels.size() == 0 || !has({at}.nodeSelector) || "
        f"!('{GPU_PRODUCT_LABEL}' in {at}.nodeSelector)",
        f"nodeSelector: give gpuModels or {GPU_PRODUCT_LABEL}, not both",
    )
    yield Rule(
        f"!has({at}.gpuSpeeds) || ({at}.gpuSpeeds.size() <= 16 && {at}.gpuSpeeds.all(m, m.size() <= 63 && "
        f"m.matches('^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$')))",
        "gpuSpeeds: name at most 16 models, as the node label does",
    )
    yield Rule(
        f"!has({at}.gpuSpeeds) || {at}.gpuSpeeds.all(m, {_number(f'{at}.gpuSpeeds[m]')} >= 0.001 && "
        f"{_number(f'{at}.gpuSpeeds[m]')} <= 1000.0)",
        'gpuSpeeds: give speeds from "0.001" to "1000"; 1 = as walltimes say',
    )
    yield Rule(
        f"!has({at}.gpuSpeeds) || !has({at}.gpuModels) || {at}.gpuModels.size() == 0 || "
        f"{at}.gpuSpeeds.all(m, m in {at}.gpuModels)",
        "gpuSpeeds: name models of gpuModels",
    )
    yield Rule(
        f"!has({at}.gpuSpeeds) || {at}.gpuSpeeds.size() == 0 || has({at}.{memory}) || "
        f"({asks} && {_number(share)} > 0.0)",
        f"gpuSpeeds: ask for GPUs too, with {GPU_RESOURCE} or by memory; {_INSTANCES}",
    )
    yield Rule(
        f"!has({at}.gpuSpeeds) || {at}.gpuSpeeds.size() == 0 || !has({at}.nodeSelector) || "
        f"!('{GPU_PRODUCT_LABEL}' in {at}.nodeSelector)",
        f"nodeSelector: give gpuSpeeds or {GPU_PRODUCT_LABEL}, not both",
    )
    yield Rule(
        f"{at}.{step} == 1 || {elastic} < 0 || ({elastic} > 0 && {elastic} % {at}.{step} == 0)",
        f"{step}: give a divisor of {count} - {least}; where that is 0 nothing is elastic, so leave it out",
    )
    yield Rule(
        f"{at}.resizable || {elastic} != 0", f"resizable: {count} - {least} is 0: it never resizes; leave it out"
    )
    yield Rule(f"!has({at}.spread) || !has({at}.slices)", "slices: give slices or spread, not both")
    yield Rule(
        f"!has({at}.spread) || has({at}.spread.maxPerDomain) || has({at}.spread.maxSkew)",
        "spread: give maxPerDomain, maxSkew or both",
    )
    yield Rule(
        f"!has({at}.slices) || ({at}.{count} % {at}.slices.size == 0 && {minimum} % {at}.slices.size == 0)",
        f"slices: size divides {count} and {least}, so that all slices are whole",
    )
    for name in ("podAffinity", "podAntiAffinity"):
        for selector in ("labelSelector", "namespaceSelector"):
            yield Rule(
                f"!has({at}.{name}) || !has({at}.{name}.required) || {at}.{name}.required.all(t, !has(t.{selector}) || "
                f"!has(t.{selector}.matchExpressions) || t.{selector}.matchExpressions.all(e, {_SOUND}))",
                f"{name}: In and NotIn take values, Exists and DoesNotExist none",
            )
    remedy = "nodeAffinity: In and NotIn take values, Exists and DoesNotExist none, Gt and Lt one whole number"
    for terms, expressions in (("required", "t.matchExpressions"), ("preferred", "t.preference.matchExpressions")):
        affinity = f"{at}.nodeAffinity"
        yield Rule(
            f"!has({affinity}) || !has({affinity}.{terms}) || {affinity}.{terms}.all(t, "
            f"!has({expressions}) || {expressions}.all(e, {_SOUND}))",
            remedy,
        )


def _profile(at: str, resources: str) -> Rule:
    """Of jobs only: Workloads are also made of pods, which ask for what they like."""
    amounts = f"{at}.{resources}"
    return Rule(
        f"!has({amounts}) || {amounts}.all(r, !r.startsWith('{MIG_PREFIX}') || r.matches('{RESOURCE_PATTERN}'))",
        f"{resources}: name a MIG profile as NVIDIA does: {MIG_PREFIX}3g.40gb, {MIG_PREFIX}1g.10gb.me",
    )


def _volumes() -> Iterable[Rule]:
    volumes = "object.spec.volumes"

    def each(expression: str) -> str:
        return f"!has({volumes}) || {volumes}.all(v, {expression})"

    own = f"{volumes}.exists_one(w, w.mountPath == v.mountPath)"
    yield Rule(
        each(f"v.mountPath.startsWith('/') && {own}"), "volumes: give each mountPath an absolute path of its own"
    )
    named = " + ".join(f"(has(v.{name}) && v.{name} != '' ? 1 : 0)" for name in ("claim", "hostPath", "configMap"))
    yield Rule(
        each(f"{named} + (has(v.memory) ? 1 : 0) == 1"),
        "volumes: give exactly one of claim, hostPath, configMap and memory",
    )
    yield Rule(
        each("!has(v.hostPath) || v.hostPath == '' || v.hostPath.startsWith('/')"),
        "volumes: give an absolute path as hostPath",
    )
    files = "!has(v.files) || v.files.size() == 0"
    yield Rule(each(f"{files} || (has(v.configMap) && v.configMap != '')"), "volumes: only a configMap has files")
    above = "matches('(^|/)[.][.](/|$)')"
    yield Rule(
        each(f"!has(v.subPath) || (!v.subPath.startsWith('/') && !v.subPath.{above})"),
        "volumes: give subPath a path below the volume, without ..",
    )
    yield Rule(
        each(f"{files} || v.files.all(f, !f.path.startsWith('/') && !f.path.{above})"),
        "volumes: give files paths below the volume, without ..",
    )


def _identity() -> Iterable[Rule]:
    sources, user = "object.spec.envFrom", "object.spec.securityContext"
    named = " + ".join(f"(has(e.{name}) ? (e.{name}.?name.orValue('') != '' ? 1 : 2) : 0)" for name in _SOURCES)
    yield Rule(
        f"!has({sources}) || {sources}.all(e, {named} == 1)",
        "envFrom: give exactly one of configMapRef and secretRef, with a name",
    )
    secrets = "object.spec.imagePullSecrets"
    yield Rule(
        f"!has({secrets}) || {secrets}.all(s, s.?name.orValue('') != '')",
        "imagePullSecrets: name Secrets of the namespace",
    )
    yield Rule(
        f"!has({user}) || !({user}.?runAsNonRoot.orValue(false) && {user}.?runAsUser.orValue(1) == 0)",
        "securityContext: user 0 is root; give another runAsUser, or leave out runAsNonRoot",
    )


_SOURCES = ("configMapRef", "secretRef")


def _of_each_pod_set() -> Iterable[Rule]:
    for expression, remedy in _pod_set("p", "resources", "gpuMemory", "step", "count", "minCount"):
        yield Rule(f"object.spec.podSets.all(p, {expression})", f"podSets: {remedy.removeprefix('p.')}")


_ROLES = "object.spec.roles"
_NODES = ("resourcesPerNode", "gpuMemoryPerNode", "nodeStep", "nodes", "minNodes")


def _roles() -> Iterable[Rule]:
    yield Rule(
        f"has({_ROLES}) && {_ROLES}.size() > 0 || has(object.spec.command) && object.spec.command.size() > 0",
        "command: it must not be empty, but where roles have it",
    )

    def each(expression: str) -> str:
        return f"!has({_ROLES}) || {_ROLES}.all(role, {expression})"  # inside, r is a resource

    names = f"{_ROLES}.map(q, q.name)"
    yield Rule(each(f"{_ROLES}.exists_one(q, q.name == role.name)"), "roles: each needs a name of its own")
    yield Rule(each("has(role.command) && role.command.size() > 0"), "roles: each needs a command")
    yield Rule(
        each(f"object.metadata.name.size() + role.name.size() <= {LONGEST_NAMES}"),
        f"roles: use at most {LONGEST_NAMES} characters in the names of job and role together: pods have both",
    )
    yield Rule(
        each(
            f"!has(role.after) || role.after.all(a, "
            f"{names}.indexOf(a) >= 0 && {names}.indexOf(a) < {names}.indexOf(role.name))"
        ),
        "roles: after names roles that are listed before it",
    )
    for expression, remedy in (*_pod_set("role", *_NODES), _profile("role", _NODES[0])):
        yield Rule(each(expression), f"roles: {remedy.removeprefix('role.')}")
    yield Rule(
        f"!has({_ROLES}) || {_ROLES}.map(r, r.nodes).sum() <= 100000", "roles: a job has at most 100000 nodes in all"
    )
    alone = f"!has({_ROLES}) || {_ROLES}.size() == 0 || "
    for field in msgspec.structs.fields(NodeSet):
        name = f"object.spec.{field.encode_name}"
        if field.encode_name not in SHARED_BY_ROLES:
            plain = isinstance(field.default, int)
            none = f"{name} == {str(field.default).lower()}" if plain else _none(field, name)
            yield Rule(f"{alone}{none}", f"{field.encode_name}: say it in each of roles, or leave out roles")
    yield Rule(
        f"{alone}(object.spec.groups == 1 && !has(object.spec.minGroups))",
        "groups: these are of nodes that are all alike: leave them out, or leave out roles",
    )
    policy = "object.spec.successPolicy"
    yield Rule(
        f"!has({policy}) || (has({_ROLES}) && {policy}.roles.all(n, {_ROLES}.exists(r, r.name == n)))",
        "successPolicy: name some of the roles",
    )


def _none(field: msgspec.structs.FieldInfo, name: str) -> str:
    """Nothing is said by a field: it is absent, or as empty as a server leaves it where it says defaults."""
    if field.default is None:
        return f"!has({name})"
    if field.default_factory in (list, dict):
        return f"(!has({name}) || {name}.size() == 0)"
    inner = msgspec.structs.fields(type(field.default_factory()))
    return f"(!has({name}) || {' && '.join(_none(one, f'{name}.{one.encode_name}') for one in inner)})"


_SETS = "object.spec.podSets"
_AMOUNTS = ("quota", "limit", "borrowingLimit", "lendingLimit", "userLimit")

RULES: dict[str, tuple[Rule, ...]] = {
    "queues": (
        *(_whole_licences(f"object.spec.{name}") for name in _AMOUNTS),
        *(
            Rule(
                f"!has(object.spec.{name}) || !object.spec.{name}.exists(r, r in "
                f"['{GPU_PRODUCT_LABEL}', '{GPU_MODEL_PREFIX}'])",
                f"{name}: name a model as the node label does: {GPU_MODEL_PREFIX}NVIDIA-H100-80GB-HBM3",
            )
            for name in _AMOUNTS
        ),
        *(
            Rule(
                f"!has(object.spec.{name}) || object.spec.{name}.all(r, r.contains('/') || "
                f"r in {list(OWN_RESOURCES)} || r.startsWith('{HUGEPAGES}'))",
                f"{name}: {RESOURCE_REMEDY}",
            )
            for name in _AMOUNTS
        ),
    ),
    "topologies": (
        Rule(
            "object.spec.levels.all(l, object.spec.levels.exists_one(m, m.nodeLabel == l.nodeLabel))",
            "levels: each level needs a label of its own",
        ),
    ),
    "trainingjobs": (
        Rule("object.metadata.name.size() <= 50", "name: use at most 50 characters: pods are named after the job"),
        *_pod_set("object.spec", *_NODES),
        _profile("object.spec", _NODES[0]),
        *_roles(),
        Rule(
            "object.spec.groups == 1 || !has(object.spec.minNodes) || object.spec.minNodes >= object.spec.nodes",
            "minNodes: groups come and go whole: leave it out, or give one group",
        ),
        Rule(
            "!has(object.spec.minGroups) || object.spec.minGroups <= object.spec.groups",
            "minGroups: give at most groups",
        ),
        Rule("object.spec.nodes * object.spec.groups <= 100000", "groups: a job has at most 100000 nodes in all"),
        Rule(
            f"!has(object.spec.podLabels) || object.spec.podLabels.all(k, !k.startsWith('{_GROUP}/'))",
            f"podLabels: labels {_GROUP}/... are heddle's own",
        ),
        Rule(
            "!has(object.spec.podLabels) || object.spec.podLabels.all(k, object.spec.podLabels[k].size() <= 63 && "
            "object.spec.podLabels[k].matches('^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$'))",
            "podLabels: values have letters, digits, '-', '_' and '.', 63 at most",
        ),
        *_volumes(),
        *_identity(),
    ),
    "workloads": (
        Rule(f"{_SETS}.all(p, {_SETS}.exists_one(q, q.name == p.name))", "podSets: each needs a name of its own"),
        *_of_each_pod_set(),
        Rule(
            f"{_SETS}.all(p, !has(p.after) || p.after.all(a, a != p.name && {_SETS}.exists(q, q.name == a && "
            "(!has(q.group) || q.group == '' || (has(p.group) && q.group == p.group)))))",
            "podSets: after names other pod sets, of the same group or of none",
        ),
        Rule(
            f"!has(object.spec.minGroups) || object.spec.minGroups <= {_SETS}.filter(p, has(p.group) && p.group != '' "
            f"&& {_SETS}.filter(q, has(q.group) && q.group == p.group)[0].name == p.name).size()",
            "minGroups: give at most as many groups as the pod sets name",
        ),
    ),
}  # fmt: skip
"""By resource. Between fields, one object; what concerns several becomes a condition."""


def _constraints(resources: Iterable[str], operations: tuple[str, ...] = ("CREATE", "UPDATE")) -> Object:
    rule = {
        "apiGroups": [_GROUP],
        "apiVersions": [_VERSION],
        "operations": list(operations),
        "resources": list(resources),
    }
    return {"resourceRules": [rule]}


def _policy(name: str, spec: Object) -> list[Object]:
    return [
        {
            "apiVersion": _API,
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": name},
            "spec": {"failurePolicy": "Fail", **spec},
        },
        {
            "apiVersion": _API,
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": name},
            "spec": {"policyName": name, "validationActions": ["Deny"]},
        },
    ]


def _invalid(rule: Rule) -> Object:
    return {"expression": rule[0], "message": rule[1], "reason": "Invalid"}


def faults() -> list[Object]:
    """Policies that refuse an object whose fields do not fit each other."""
    found = []
    for resource, rules in RULES.items():
        spec = {
            "matchConstraints": _constraints([resource]),
            # what is stored already can still be labelled and deleted, whatever a later heddle thinks of it
            "matchConditions": [
                {"name": "spec-changed", "expression": "oldObject == null || object.spec != oldObject.spec"}
            ],
            "validations": [_invalid(rule) for rule in rules],
        }
        found += _policy(f"heddle-{resource}", spec)
    return found


_TRUSTED = (
    f"authorizer.group('{_GROUP}').resource(request.resource.resource).subresource('submitter')"
    ".namespace(request.namespace).check('update').allowed()"
)
"""Cluster administrators (who restore backups) and the controller (who makes Workloads of jobs)."""
_PREFIX = f"{_GROUP}/"
_SUBMITTED = ("trainingjobs", "workloads")


def _unchanged(place: str) -> str:
    """No reserved name in labels or annotations came, went or changed; who submits may say who they are."""
    old = f"(oldObject == null ? {{}} : oldObject.metadata.?{place}.orValue({{}}))"
    new = f"object.metadata.?{place}.orValue({{}})"
    own = (
        f"(oldObject == null && ((k == '{USER_ANNOTATION}' && {new}[k] == request.userInfo.username) || "
        f"(k == '{GROUPS_ANNOTATION}' && {new}[k] == request.userInfo.?groups.orValue([]).join(','))))"
    )
    return (
        f"{new}.all(k, !k.startsWith('{_PREFIX}') || (k in {old} && {old}[k] == {new}[k]) || {own}) && "
        f"{old}.all(k, !k.startsWith('{_PREFIX}') || k in {new})"
    )


def reserved() -> list[Object]:
    """The policy that keeps `heddle.dev/…` labels and annotations of heddle's kinds, who submitted them above all."""
    spec = {
        "matchConstraints": _constraints(_SUBMITTED),
        "matchConditions": [{"name": "not-trusted", "expression": f"!{_TRUSTED}"}],
        "validations": [
            {
                "expression": _unchanged(place),
                "message": f"{place} {_PREFIX}... are heddle's to write, as who submitted a job; leave them out",
                "reason": "Forbidden",
            }
            for place in ("annotations", "labels")
        ],
    }
    return _policy("heddle-submitter", spec)


def stamp() -> list[Object]:
    """The policy that writes on each new job who submits it, as the embedded server does."""
    name = "heddle-submitter"
    annotations = (
        f"'{USER_ANNOTATION}': request.userInfo.username, "
        f"'{GROUPS_ANNOTATION}': request.userInfo.?groups.orValue([]).join(',')"
    )
    expression = f"Object{{metadata: Object.metadata{{annotations: {{{annotations}}}}}}}"
    given = f"'{USER_ANNOTATION}' in object.metadata.?annotations.orValue({{}})"
    made = "request.resource.resource == 'workloads'"
    return [
        {
            "apiVersion": _API,
            "kind": MUTATING,
            "metadata": {"name": name},
            "spec": {
                "failurePolicy": "Fail",
                "reinvocationPolicy": "Never",
                "matchConstraints": _constraints(_SUBMITTED, ("CREATE",)),
                # who is trusted hands on what was stamped before, and makes Workloads of pods, which are nobody's
                "matchConditions": [{"name": "not-handed-on", "expression": f"!(({given} || {made}) && {_TRUSTED})"}],
                "mutations": [
                    {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}},
                ],
            },
        },
        {
            "apiVersion": _API,
            "kind": f"{MUTATING}Binding",
            "metadata": {"name": name},
            "spec": {"policyName": name},
        },
    ]
