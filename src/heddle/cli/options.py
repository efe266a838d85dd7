"""Options that several verbs have, and the connection that the global ones choose."""

from typing import Annotated, Any

import typer

from heddle.cli.errors import USAGE, fail

_WIDE = ("json", "yaml", "wide")
_PLAIN = ("json", "yaml")


class Target:
    """Which server the global options mean."""

    kubeconfig: str | None = None
    context: str | None = None


def client(namespace: str = "default") -> Any:
    """A connection; importing it takes longer than parsing the command line."""
    from heddle.sdk import Client

    return Client(kubeconfig=Target.kubeconfig, context=Target.context, namespace=namespace)


def _one_of(forms: tuple[str, ...]) -> Any:
    def check(form: str) -> str:
        if form and form not in forms:
            raise fail(f"--output {form!r}: choose {', '.join(forms[:-1])} or {forms[-1]}", USAGE)
        return form

    return check


Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Namespace.")]
Output = Annotated[str, typer.Option("--output", "-o", help="json, yaml or wide.", callback=_one_of(_WIDE))]
PlainOutput = Annotated[str, typer.Option("--output", "-o", help="json or yaml.", callback=_one_of(_PLAIN))]
