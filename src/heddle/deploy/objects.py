"""Objects of an installation: the controller with its Service, its rights, heddle's kinds and policies."""

from collections.abc import Iterable
from typing import Any

from heddle import __version__
from heddle.api import crd
from heddle.api.queue import GROUP_VERSION
from heddle.deploy import policies, rights
from heddle.deploy.rights import Right
from heddle.deploy.template import Hole, Part, at, value
from heddle.deploy.values import NAMESPACE

CONTROLLER = "heddle-controller"
SERVICE = "heddle"
DEFAULT_QUEUE = "default"
MANAGER = "heddle-install"
"""Who manages the objects that `heddle install` makes: field manager and label."""
MANAGED_BY = "app.kubernetes.io/managed-by"
_USER = 65532
_PORT = 8080
_ANSWERS = 8443

_SELECTOR = {"app.kubernetes.io/name": "heddle", "app.kubernetes.io/component": "controller"}
_LABELS: dict[str, Any] = {
    "app.kubernetes.io/name": "heddle",
    "app.kubernetes.io/part-of": "heddle",
    MANAGED_BY: Hole("{{ .Release.Service }}", lambda _: MANAGER),
}

_IMAGE = Hole(
    '{{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) | toJson }}',
    lambda values: f"{at(values, 'image.repository')}:{at(values, 'image.tag') or __version__}",
)
_ARGUMENTS = Hole(
    '{{ concat (list "controller") .Values.extraArgs | toJson }}', lambda values: ["controller", *values["extraArgs"]]
)
_KEPT = Hole(
    '{{ ternary (dict "helm.sh/resource-policy" "keep") dict .Values.crds.keep | toJson }}',
    lambda values: {"helm.sh/resource-policy": "keep"} if at(values, "crds.keep") else {},
)


def _labelled(body: dict[str, Any], *, namespaced: bool = False) -> dict[str, Any]:
    meta = body["metadata"]
    named = {"name": meta["name"]} | ({"namespace": NAMESPACE} if namespaced else {})
    rest = {key: inner for key, inner in meta.items() if key not in ("name", "labels")}
    labels = _LABELS | meta.get("labels", {})
    return {**body, "metadata": {**named, "labels": labels, **rest}}


def namespace() -> list[Part]:
    """The controller's namespace, in which only pods like its own may run."""
    body = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    }
    return [Part(_labelled(body), chart=False)]


def definitions(annotations: Any = _KEPT) -> list[Part]:
    """heddle's CustomResourceDefinitions."""
    found = []
    for manifest in crd.manifests():
        meta = {**manifest["metadata"], "annotations": annotations}
        found.append(Part(_labelled({**manifest, "metadata": meta}), when="crds.install"))
    return found


def _rbac(
    kind: str, name: str, given: Iterable[Right], *, namespaced: bool = False, labels: dict[str, str] | None = None
) -> dict[str, Any]:
    body = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": name, "labels": labels or {}},
        "rules": [right.rule for right in given],
    }
    return _labelled(body, namespaced=namespaced)


def _bound(kind: str, name: str, subject: dict[str, str], *, namespaced: bool = False) -> dict[str, Any]:
    body = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": f"{kind}Binding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
        "subjects": [subject],
    }
    return _labelled(body, namespaced=namespaced)


def access() -> list[Part]:
    """Who the controller is, what it may do, and what users may."""
    controller = {"kind": "ServiceAccount", "name": CONTROLLER, "namespace": NAMESPACE}
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": CONTROLLER}}
    everyone = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:authenticated"}
    to = "rbac.authorization.k8s.io/aggregate-to-"
    wide = {f"{to}{role}": "true" for role in ("view", "edit", "admin")}
    narrow = {f"{to}{role}": "true" for role in ("edit", "admin")}
    users = [
        _rbac("ClusterRole", "heddle-view", rights.VIEW, labels=wide),
        _rbac("ClusterRole", "heddle-edit", rights.EDIT, labels=narrow),
        _rbac("ClusterRole", "heddle-queue-reader", rights.QUEUE_READER),
        _bound("ClusterRole", "heddle-queue-reader", everyone),
        _rbac("Role", "heddle-asker", rights.ASKER, namespaced=True),
        _bound("Role", "heddle-asker", everyone, namespaced=True),
    ]
    return [
        Part(_labelled(account, namespaced=True)),
        Part(_rbac("ClusterRole", CONTROLLER, rights.CONTROLLER)),
        Part(_bound("ClusterRole", CONTROLLER, controller)),
        Part(_rbac("Role", CONTROLLER, rights.CONTROLLER_OWN, namespaced=True)),
        Part(_bound("Role", CONTROLLER, controller, namespaced=True)),
        *(Part(body, when="userRoles.enabled") for body in users),
    ]


def admission() -> list[Part]:
    """Policies; that which writes on a job who submits it where the cluster knows such policies."""
    checks = [*policies.faults(), *policies.reserved()]
    return [
        *(Part(_labelled(body), when="admission.enabled") for body in checks),
        *(
            Part(_labelled(body), when="admission.enabled", needs=f"{body['apiVersion']}/{body['kind']}")
            for body in policies.stamp()
        ),
    ]


def _probe(path: str, seconds: int) -> dict[str, Any]:
    return {"httpGet": {"path": path, "port": "http"}, "periodSeconds": seconds, "timeoutSeconds": 5}


def _container() -> dict[str, Any]:
    return {
        "name": "controller",
        "image": _IMAGE,
        "imagePullPolicy": value("image.pullPolicy"),
        "args": _ARGUMENTS,
        "env": [
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
        ],
        "ports": [{"name": "http", "containerPort": _PORT}, {"name": "answers", "containerPort": _ANSWERS}],
        # a large cluster takes a while to list; a start that takes minutes is no reason to start again
        "startupProbe": _probe("/healthz", 5) | {"failureThreshold": 60},
        "livenessProbe": _probe("/healthz", 10) | {"failureThreshold": 6},
        "readinessProbe": _probe("/readyz", 5),
        "resources": value("resources"),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108  a volume of its own
    }


def _spread(key: str) -> dict[str, Any]:
    return {
        "maxSkew": 1,
        "topologyKey": key,
        "whenUnsatisfiable": "ScheduleAnyway",  # a cluster of one host runs it too
        "labelSelector": {"matchLabels": _SELECTOR},
    }


def controller() -> list[Part]:
    """The controller's Deployment, Service and PodDisruptionBudget."""
    pod = {
        "serviceAccountName": CONTROLLER,
        "priorityClassName": value("priorityClassName"),
        "imagePullSecrets": value("imagePullSecrets"),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationGracePeriodSeconds": 30,
        "containers": [_container()],
        "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}}],
        "topologySpreadConstraints": [_spread("kubernetes.io/hostname"), _spread("topology.kubernetes.io/zone")],
        "nodeSelector": value("nodeSelector"),
        "tolerations": value("tolerations"),
        "affinity": value("affinity"),
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": CONTROLLER, "labels": _SELECTOR},
        "spec": {
            "replicas": value("replicas"),
            "selector": {"matchLabels": _SELECTOR},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 1}},
            "template": {
                "metadata": {"labels": {**_LABELS, **_SELECTOR}, "annotations": value("podAnnotations")},
                "spec": pod,
            },
        },
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": SERVICE,
            "annotations": {
                "prometheus.io/scrape": "true",
                "prometheus.io/path": "/metrics",
                "prometheus.io/port": "8080",
            },
        },
        "spec": {
            "type": "ClusterIP",
            "selector": _SELECTOR,
            "ports": [
                {"name": "http", "port": 80, "targetPort": "http"},
                {"name": "answers", "port": 443, "targetPort": "answers"},
            ],
        },
    }
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": CONTROLLER},
        "spec": {
            "maxUnavailable": value("podDisruptionBudget.maxUnavailable"),
            "selector": {"matchLabels": _SELECTOR},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }
    return [
        Part(_labelled(deployment, namespaced=True)),
        Part(_labelled(service, namespaced=True)),
        Part(_labelled(budget, namespaced=True), when="podDisruptionBudget.enabled"),
    ]


def queue() -> list[Part]:
    """The default queue. It stays where its definition stays."""
    body = {
        "apiVersion": GROUP_VERSION,
        "kind": "Queue",
        "metadata": {"name": DEFAULT_QUEUE, "annotations": _KEPT},
        "spec": value("defaultQueue.spec"),
    }
    return [Part(_labelled(body), when="defaultQueue.enabled", once=True)]


FILES = {
    "namespace": namespace,
    "crds": definitions,
    "rbac": access,
    "admission": admission,
    "controller": controller,
    "queue": queue,
}
"""What there is, in the order in which it is made; each is a file of the chart."""


def parts() -> list[Part]:
    """Everything that heddle is on a cluster, in the order in which it is made."""
    return [part for make in FILES.values() for part in make()]
