"""The Helm chart, written from the description: `make chart`."""

import json
import textwrap
from pathlib import Path
from typing import Any

import msgspec

from heddle import __version__
from heddle.api.schema import field_names, schema_of
from heddle.deploy.objects import CONTROLLER, FILES, MANAGED_BY, SERVICE, definitions
from heddle.deploy.template import to_yaml, written
from heddle.deploy.values import NAMESPACE, Values, spelled_out

_HEAD = "# Written by `make chart` from src/heddle/deploy; changes go there.\n"
RELEASE = "heddle"
KUBERNETES = ">=1.30.0-0"
"""ValidatingAdmissionPolicy is stable since 1.30."""

_NOTES = f"""heddle {{{{ .Chart.AppVersion }}}} is installed in {NAMESPACE}.

  kubectl -n {NAMESPACE} rollout status deployment/{CONTROLLER}
  kubectl get queues

Metrics, /healthz and /readyz: service {SERVICE} in {NAMESPACE}, port 80.
{{{{- if .Values.crds.keep }}}}

`helm uninstall` leaves heddle's definitions, and with them all Queues, TrainingJobs and Workloads.
{{{{- else }}}}

`helm uninstall` removes heddle's definitions, and with them all Queues, TrainingJobs and Workloads; to keep them:
  helm upgrade {{{{ .Release.Name }}}} ... --reuse-values --set crds.keep=true
{{{{- end }}}}
"""

_CHECK = f"""{{{{- if or (ne .Release.Name "{RELEASE}") (ne .Release.Namespace "{NAMESPACE}") }}}}
{{{{- fail "heddle has one place: helm install {RELEASE} ... --namespace {NAMESPACE} --create-namespace" }}}}
{{{{- end }}}}
"""


def _first() -> str:
    """The definitions as Helm makes them before everything else, waiting until their kinds are served.

    Helm never touches these again. So that it does (upgrades and removes them), the templates hold them too, and here
    they bear the marks by which Helm takes them over into the release.
    """
    marks = {"meta.helm.sh/release-name": RELEASE, "meta.helm.sh/release-namespace": NAMESPACE}
    bodies = [part.body for part in definitions(marks)]
    for body in bodies:
        body["metadata"]["labels"] |= {MANAGED_BY: "Helm"}
    return "---\n".join(to_yaml(body) for body in bodies)


def files() -> dict[str, str]:
    """The chart's files by their paths in it."""
    found = {
        "Chart.yaml": _HEAD + to_yaml(_chart()),
        "values.yaml": _HEAD + _commented(Values, spelled_out(Values()), 0),
        "values.schema.json": json.dumps(_schema(), indent=2) + "\n",
        ".helmignore": "*.orig\n*.swp\n",
        "templates/NOTES.txt": _NOTES,
        "templates/check.yaml": _CHECK,
        "crds/crds.yaml": _HEAD + _first(),
    }
    for name, make in FILES.items():
        documents = [written(part) for part in make() if part.chart]
        if documents:
            found[f"templates/{name}.yaml"] = _HEAD + "---\n".join(documents)
    return found


def _chart() -> dict[str, Any]:
    return {
        "apiVersion": "v2",
        "name": "heddle",
        "description": "Turns GPUs into one shared AI platform: queues, gangs, fair share, elastic training",
        "type": "application",
        "version": __version__,
        "appVersion": __version__,
        "kubeVersion": KUBERNETES,
        "keywords": ["gpu", "scheduler", "training"],
        "home": "https://github.com/heddle-dev/heddle",
        "sources": ["https://github.com/heddle-dev/heddle"],
    }


def _schema() -> dict[str, Any]:
    schema = _closed(schema_of(Values))
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Values of the chart heddle", **schema}


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    """Plain JSON Schema in which a name that nobody knows is an error, not silence."""
    if schema.pop("x-kubernetes-int-or-string", False):
        schema["type"] = ["integer", "string"]
    if schema.pop("x-kubernetes-preserve-unknown-fields", False):
        schema.pop("type", None)
    schema.pop("format", None)
    if "properties" in schema:
        schema["properties"] = {name: _closed(inner) for name, inner in schema["properties"].items()}
        schema["additionalProperties"] = False
    elif isinstance(schema.get("additionalProperties"), dict):
        schema["additionalProperties"] = _closed(schema["additionalProperties"])
    if "items" in schema:
        schema["items"] = _closed(schema["items"])
    if schema.get("title") == "":
        del schema["title"]
    return schema


def _commented(kind: type[msgspec.Struct], values: dict[str, Any], depth: int) -> str:
    """Values as YAML, each below what it means."""
    lines = []
    schema = schema_of(kind)["properties"]
    indent = "  " * depth
    for name, field in field_names(kind).items():
        about = schema[name].get("description", "")
        lines += [f"{indent}# {line}" for line in textwrap.wrap(about, 110 - len(indent))]
        inner = _struct(field.type)
        if inner is None:
            lines += [indent + line for line in to_yaml({name: values[name]}).splitlines()]
        else:
            lines += [f"{indent}{name}:", _commented(inner, values[name], depth + 1).rstrip("\n")]
    return "\n".join(lines) + "\n"


def _struct(info: msgspec.inspect.Type) -> type[msgspec.Struct] | None:
    while isinstance(info, msgspec.inspect.Metadata):
        info = info.type
    return info.cls if isinstance(info, msgspec.inspect.StructType) else None


def values_table() -> str:
    """The values as a table of Markdown, for docs/kubernetes-install.md."""
    rows = ["| value | default | means |", "|---|---|---|", *_rows(Values, spelled_out(Values()), "")]
    return "\n".join(rows)


def _rows(kind: type[msgspec.Struct], values: dict[str, Any], path: str) -> list[str]:
    schema = schema_of(kind)["properties"]
    rows = []
    for name, field in field_names(kind).items():
        inner = _struct(field.type)
        if inner is None:
            default = json.dumps(values[name])
            rows.append(f"| `{path}{name}` | `{default}` | {schema[name].get('description', '')} |")
        else:
            rows += _rows(inner, values[name], f"{path}{name}.")
    return rows


def write(folder: Path) -> None:
    """Write the chart, and remove from its folder what is no longer part of it."""
    wanted = files()
    for old in folder.rglob("*"):
        if old.is_file() and str(old.relative_to(folder)) not in wanted:
            old.unlink()
    for name, text in wanted.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
