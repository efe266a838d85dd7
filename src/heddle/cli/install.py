"""`heddle install`: put heddle on a Kubernetes cluster, change it, take it off; without helm."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from heddle import __version__
from heddle.cli.errors import FAILED, USAGE, confirm, fail, refuse_off_terminal, told
from heddle.cli.options import Target
from heddle.cli.show import waiting
from heddle.deploy.objects import CONTROLLER
from heddle.deploy.values import NAMESPACE, Values, convert

_SHOWN = 4
"""Changed fields that are named."""


def install(
    given: Annotated[
        list[str], typer.Option("--set", help="A value, as replicas=3 or image.repository=registry.example/heddle.")
    ] = [],  # noqa: B006  Typer reads it once
    values: Annotated[list[Path], typer.Option("--values", "-f", help="YAML file of values; later ones win.")] = [],  # noqa: B006
    remove: Annotated[
        bool, typer.Option("--uninstall", help="Remove heddle, and all Queues and TrainingJobs.")
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep-crds", help="With --uninstall: leave the definitions, and so users' objects.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be done.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    kubeconfig: Annotated[
        str | None, typer.Option(help="The cluster's; without it $KUBECONFIG, else ~/.kube/config.")
    ] = None,
    context: Annotated[str | None, typer.Option(help="Context of the kubeconfig; its current one by default.")] = None,
) -> None:
    """Install heddle on a Kubernetes cluster, or change or remove it: first the plan, then a question."""
    if keep and not remove:
        raise fail("--keep-crds goes with --uninstall", USAGE)
    if remove and (given or values):
        raise fail("--set and --values do not go with --uninstall", USAGE)
    wanted = chosen(values, given)
    with told(), _server(kubeconfig or Target.kubeconfig, context or Target.context) as server:
        from heddle.deploy import plan

        with waiting("comparing"):
            try:
                if remove:
                    steps = plan.uninstall(server, keep_definitions=keep)
                else:
                    plan.check(server, wanted)
                    steps = plan.install(server, wanted)
            except plan.Refused as why:
                raise fail(str(why)) from None
        for step in steps:
            _print(step)
        if not any(step.action != "unchanged" for step in steps):
            print(f"nothing to do: {'no heddle that this command made is' if remove else f'heddle {__version__} is'} "
                  f"installed on {server.address}")  # fmt: skip
            return
        counts = {
            action: sum(step.action == action for step in steps) for action in dict.fromkeys(s.action for s in steps)
        }
        print(f"{server.address}: {', '.join(f'{count} {action}' for action, count in counts.items())}")
        if remove and not keep and (lost := plan.users_objects(server)):
            print("with their definitions go: " + ", ".join(f"{count} {kind}" for kind, count in lost.items()))
        if dry_run:
            return
        if not yes:
            refuse_off_terminal("the cluster would be changed")
            if not confirm("Go on?"):
                raise fail("nothing was changed", FAILED)
        with waiting("working"):
            for step in plan.apply(server, steps):
                print(f"{step.action}d {step.name}", flush=True)
        if not remove:
            print(f"see it start: kubectl -n {NAMESPACE} rollout status deployment/{CONTROLLER}")


def _print(step: Any) -> None:
    fields = ", ".join(step.changes[:_SHOWN])
    more = f" and {len(step.changes) - _SHOWN} more" if len(step.changes) > _SHOWN else ""
    print(f"  {step.action:<9}  {step.name}{f'  ({fields}{more})' if fields else ''}")


@contextmanager
def _server(kubeconfig: str | None, context: str | None) -> Iterator[Any]:
    # importing the client takes longer than parsing the command line
    from heddle.deploy.server import Server

    try:
        server = Server(kubeconfig, context)
    except ValueError as error:
        raise fail(str(error), USAGE) from None
    try:
        yield server
    finally:
        server.close()


def chosen(files: list[Path], given: list[str]) -> Values:
    """The values that files and options say, later ones over earlier ones.

    Raises:
        SystemExit: they make no sense.
    """
    raw: dict[str, Any] = {}
    for path in files:
        try:
            loaded = yaml.safe_load(path.read_text()) or {}
        except OSError as error:
            raise fail(f"{path}: {error.strerror}", USAGE) from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise fail(f"{path} is not YAML: {' '.join(str(error).split())}", USAGE) from None
        if not isinstance(loaded, dict):
            raise fail(f"{path} holds no values: write name: value", USAGE)
        _merge(raw, loaded)
    for one in given:
        name, sign, text = one.partition("=")
        if not sign or not name:
            raise fail(f"--set {one!r}: write name=value, as replicas=3", USAGE)
        try:
            value: Any = yaml.safe_load(text) if text else ""
        except yaml.YAMLError:
            value = text
        # as with helm, a backslash keeps a dot: nodeSelector.kubernetes\.io/os=linux
        for part in reversed(re.split(r"(?<!\\)\.", name)):
            value = {part.replace("\\.", "."): value}
        _merge(raw, value)
    try:
        return convert(raw)
    except ValueError as error:
        raise fail(str(error), USAGE) from None


def _merge(into: dict[str, Any], more: dict[str, Any]) -> None:
    for name, value in more.items():
        if isinstance(value, dict) and isinstance(into.get(name), dict):
            _merge(into[name], value)
        else:
            into[name] = value
