"""The `heddle` command."""

from typing import Annotated

import typer

from heddle import __version__
from heddle.cli import controller, install, jobs, objects, outlook, scenario, simulate, up
from heddle.cli.options import Target

app = typer.Typer(
    name="heddle",
    help="GPUs - one workstation, a cluster, a fleet - as one shared AI platform.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 failed, 2 not understood, 3 no heddle answers, 4 no such object, 130 interrupted; "
    "`run` exits with the job's own code.",
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"heddle {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
    kubeconfig: Annotated[
        str | None,
        typer.Option(
            help="Server to talk to. Without it: $KUBECONFIG where it is set, else the embedded heddle that is up. "
            "`status` and `down` always mean the embedded one.",
        ),
    ] = None,
    context: Annotated[str | None, typer.Option(help="Context of the kubeconfig; its current one by default.")] = None,
) -> None:
    Target.kubeconfig, Target.context = kubeconfig, context


for command in (
    up.up, up.down, up.status, jobs.run, jobs.ps, objects.top, jobs.logs, jobs.explain, objects.history,
    objects.apply, objects.get, objects.describe, objects.delete, objects.events,
):  # fmt: skip
    app.command()(command)
app.command()(controller.controller)
app.command("api-resources")(objects.api_resources)
app.command()(objects.crds)
app.command()(install.install)
app.command()(scenario.scenario)
app.command()(simulate.simulate)
app.command("snapshot")(outlook.recorded)
app.add_typer(objects.queue_app, name="queue")


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
