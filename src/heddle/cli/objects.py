"""Verbs about any object: apply, get, describe, delete, events, queue tree, top, api-resources, crds."""

import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
import yaml

from heddle.api import registry
from heddle.api.crd import manifests
from heddle.api.errors import NotFound
from heddle.api.registry import Resource
from heddle.cli.answers import preview
from heddle.cli.errors import FAILED, MISSING, USAGE, confirm, fail, refuse_off_terminal, told
from heddle.cli.options import Namespace, Output, PlainOutput, client
from heddle.cli.show import (
    ago,
    as_yaml,
    console,
    gpus,
    gpus_in_use,
    instances,
    node_rows,
    queue_tree,
    serialised,
    table,
    waiting,
)

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def apply(
    file: Annotated[list[str], typer.Option("--filename", "-f", help="YAML or JSON file, or - for standard input.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only check; of jobs and queues say what would come of them.")
    ] = False,
    namespace: Namespace = "default",
) -> None:
    """Create or change objects so that they are as their manifests say."""
    wanted: list[Any] = []
    for name in file:
        try:
            text = sys.stdin.read() if name == "-" else Path(name).read_text()
            with waiting(f"reading {name}"):
                wanted += [doc for doc in yaml.load_all(text, _LOADER) if doc]
        except OSError as error:
            raise fail(f"{name}: {error.strerror}", USAGE) from None
        except UnicodeDecodeError as error:
            raise fail(f"{name} is no text in UTF-8: {error.reason} at byte {error.start}", USAGE) from None
        except yaml.YAMLError as error:
            raise fail(f"{name} is not YAML: {' '.join(str(error).split())}", USAGE) from None
    if not wanted:
        raise fail("nothing to apply: the files hold no object", USAGE)
    with told(), client(namespace) as c:
        for doc in wanted:
            if not isinstance(doc, dict):
                raise fail(f"a manifest must be an object with apiVersion, kind and metadata, not {doc!r}", USAGE)
            items = doc.get("items") or [] if doc.get("kind") == "List" else [doc]
            for item in items:
                if not isinstance(item, dict):
                    raise fail(f"a manifest must be an object with apiVersion, kind and metadata, not {item!r}", USAGE)
                with waiting("applying"):
                    obj, outcome = c.apply(item, dry_run=dry_run)
                print(f"{obj.kind.lower()}/{obj.metadata.name} {outcome}{' (dry run)' if dry_run else ''}", flush=True)
                if dry_run and outcome != "unchanged" and obj.kind in ("Queue", "TrainingJob"):
                    preview(c.preview(obj))


def get(
    kind: Annotated[str, typer.Argument(help="Kind, such as queues; see: heddle api-resources.")],
    name: Annotated[str, typer.Argument(help="One object.")] = "",
    selector: Annotated[str, typer.Option("--selector", "-l", help="Label selector.")] = "",
    all_namespaces: Annotated[bool, typer.Option("--all-namespaces", "-A", help="In all namespaces.")] = False,
    namespace: Namespace = "default",
    output: Output = "",
) -> None:
    """Show objects."""
    with told(), waiting(f"asking for {kind}"), client(namespace) as c:
        everything = {"all_namespaces": all_namespaces, "selector": selector}
        objects = [c.get(kind, name)] if name else c.list(kind, **everything)
        from heddle.sdk.client import resource

        r = resource(kind)
    if output in ("json", "yaml"):
        serialised(objects[0] if name else objects, output)
        return
    if not objects:
        print("no objects found", file=sys.stderr)
        return
    _print_table(r, objects, wide=output == "wide")


def _print_table(r: Resource, objects: list[Any], *, wide: bool) -> None:
    from heddle.server import tables

    answer = msgspec.json.decode(tables.table(r, [msgspec.json.encode(o) for o in objects], metadata={}))
    shown = [i for i, c in enumerate(answer["columnDefinitions"]) if wide or not c["priority"]]
    headers = [answer["columnDefinitions"][i]["name"].upper() for i in shown]
    table(headers, [[row["cells"][i] for i in shown] for row in answer["rows"]])


def describe(
    kind: Annotated[str, typer.Argument(help="Kind.")],
    name: Annotated[str, typer.Argument(help="Object.")],
    namespace: Namespace = "default",
) -> None:
    """Show everything about one object, and what happened to it."""
    with told(), waiting(f"asking for {kind}/{name}"), client(namespace) as c:
        obj = c.raw(kind, name)
        happened = [
            e for e in c.list("events", all_namespaces=True) if e.involved_object.uid == obj["metadata"].get("uid")
        ]
    obj["metadata"].pop("managedFields", None)
    print(as_yaml(obj), end="")
    if happened:
        print("events:")
        _print_events(happened, about=False)


def delete(
    kind: Annotated[str, typer.Argument(help="Kind.")],
    names: Annotated[list[str], typer.Argument(help="Objects.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    namespace: Namespace = "default",
) -> None:
    """Delete objects and what they own, after showing what that is."""
    with told(), client(namespace) as c:
        doomed, unknown = [], []
        with waiting("looking"):
            for name in dict.fromkeys(names):
                try:
                    doomed.append(c.get(kind, name))
                except NotFound:
                    unknown.append(name)
        if unknown:
            nothing = "; nothing was deleted" if doomed else ""
            raise fail(f"{kind} {', '.join(unknown)} not found{nothing}", MISSING)
        uids = {o.metadata.uid for o in doomed}
        if not yes:
            refuse_off_terminal(
                f"{kind} {', '.join(o.metadata.name for o in doomed)} would be deleted with what they own"
            )
            for obj in doomed:
                print(f"{obj.kind.lower()}/{obj.metadata.name}")
            for pod in c.list("pods", all_namespaces=True):
                if any(o.uid in uids for o in pod.metadata.owner_references):
                    print(f"  pod/{pod.metadata.name}  {pod.status.phase}")
            if not confirm("Delete?"):
                raise fail("nothing was deleted", FAILED)
        for obj in doomed:
            c.delete(kind, obj.metadata.name)
            print(f"{obj.kind.lower()}/{obj.metadata.name} deleted")


def events(
    name: Annotated[str, typer.Argument(help="Only about this object.")] = "",
    namespace: Namespace = "default",
    output: Output = "",
) -> None:
    """What happened, oldest first. `-o wide` adds how often, since when, and who saw it."""
    with told(), waiting("asking for events"), client(namespace) as c:
        found = [e for e in c.list("events") if not name or e.involved_object.name == name]
    if output in ("json", "yaml"):
        serialised(_sorted(found), output)
    else:
        _print_events(found, about=True, wide=output == "wide")


def _sorted(found: list[Any]) -> list[Any]:
    return sorted(found, key=lambda e: (e.last_timestamp or e.event_time or "", e.metadata.resource_version.zfill(20)))


def _print_events(found: list[Any], *, about: bool, wide: bool = False) -> None:
    headers = ["AGE", "TYPE", "REASON"] + ["OBJECT"] * about + ["COUNT", "FIRST SEEN", "SOURCE"] * wide + ["MESSAGE"]
    rows = []
    for e in _sorted(found):
        row: list[Any] = [ago(e.last_timestamp or e.event_time), e.type, e.reason]
        if about:
            row.append(f"{e.involved_object.kind.lower()}/{e.involved_object.name}")
        if wide:
            row += [e.count or 1, ago(e.first_timestamp or e.event_time), e.source.component or e.reporting_component]
        rows.append([*row, e.message])
    table(headers, rows)


queue_app = typer.Typer(help="Queues.", no_args_is_help=True)


@queue_app.command("tree")
def tree(output: Output = "") -> None:
    """The queue tree: quota, usage and fair share in GPUs. `-o wide` adds all other resources."""
    with told(), waiting("asking for queues"), client() as c:
        queues = c.list("queues")
    if output in ("json", "yaml"):
        serialised(queues, output)
    else:
        queue_tree(queues, wide=output == "wide")


def top(namespace: Namespace = "default", output: Output = "") -> None:
    """GPUs in use by node, and GPU-hours by user and queue. `-o wide` adds model, CPU and memory of nodes."""
    from heddle.control.training import ledger

    with told(), waiting("asking for usage"), client(namespace) as c:
        nodes, pods = c.list("nodes"), c.list("pods", all_namespaces=True)
        jobs, data = c.list("trainingjobs", all_namespaces=True), c.usage_data()
    rows, items = [], []
    any_cut = any(instances(n, ())[1] for n in nodes)
    for n in nodes:
        mine = [p for p in pods if p.bound and p.spec.node_name == n.metadata.name]
        used_here = gpus_in_use(mine)
        cut_used, cut = instances(n, mine)
        row: list[Any] = [n.metadata.name, f"{used_here:g}", gpus(n.status.allocatable)]
        row += [f"{cut_used}/{cut}", len(mine)] if any_cut else [len(mine)]
        rows.append(row + node_rows(n) if output == "wide" else row)
        items.append(
            {
                "node": n.metadata.name,
                "gpusInUse": used_here,
                "gpus": float(gpus(n.status.allocatable)),
                "migInstancesInUse": cut_used,
                "migInstances": cut,
                "pods": len(mine),
            }
        )
    used = ledger.usage(data, jobs).items()
    if output in ("json", "yaml"):
        usage = [{"user": u, "queue": q, "jobs": e.jobs, "gpuSeconds": e.gpu_seconds} for (u, q), e in used]
        serialised({"nodes": items, "usage": usage}, output)
        return
    cut_too, wide = ("MIG",) if any_cut else (), ("PRODUCT", "CPU", "MEMORY") if output == "wide" else ()
    table(("NODE", "GPUS IN USE", "GPUS", *cut_too, "PODS", *wide), rows)
    console.print()
    hours = [(user, queue, e.jobs, f"{e.gpu_seconds / 3600:.3f}") for (user, queue), e in used]
    table(("USER", "QUEUE", "JOBS", "GPU-HOURS"), hours)


def history(output: PlainOutput = "") -> None:
    """The last jobs that ended, and what each used."""
    from heddle.control.training import ledger

    with told(), waiting("asking for the ledger"), client() as c:
        found = list(ledger.entries(c.usage_data()).values())
    if output in ("json", "yaml"):
        serialised({"items": msgspec.to_builtins(found)}, output)
        return
    rows = [(e.name, e.user, e.queue, e.phase, ago(e.ended), f"{e.gpu_seconds / 3600:.3f}") for e in found]
    table(("JOB", "USER", "QUEUE", "END", "AGO", "GPU-HOURS"), rows)


def api_resources(output: PlainOutput = "") -> None:
    """The kinds that heddle serves."""
    if output:
        kinds = [
            {
                "name": r.plural,
                "shortNames": list(r.short_names),
                "apiVersion": r.api_version,
                "namespaced": r.namespaced,
                "kind": r.kind,
            }
            for r in registry.ALL
        ]
        serialised({"items": kinds}, output)
        return
    rows = [(r.plural, ",".join(r.short_names), r.api_version, str(r.namespaced).lower(), r.kind) for r in registry.ALL]
    table(("NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"), rows)


def crds() -> None:
    """Print heddle's CustomResourceDefinitions, for kubectl apply -f -."""
    print(yaml.safe_dump_all(manifests(), sort_keys=False), end="")
