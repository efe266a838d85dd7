"""Exit codes, and errors as one line with a remedy."""

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from heddle.api.errors import ApiError, Invalid, NotFound, Unavailable

FAILED = 1
"""The command did not do what it was asked."""
USAGE = 2
"""It was not understood."""
UNREACHABLE = 3
"""No heddle answers."""
MISSING = 4
"""The object does not exist."""
INTERRUPTED = 130
"""Ctrl-C."""


def fail(message: str, code: int = FAILED) -> SystemExit:
    """The exception that ends the program with this line on stderr."""
    print(f"heddle: {message}", file=sys.stderr)
    return SystemExit(code)


def confirm(question: str) -> bool:
    """Ask yes or no on standard error; the end of the input is no."""
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline()
    if not answer:
        print(file=sys.stderr)
    return answer.strip().lower() in ("y", "yes")


def refuse_off_terminal(what: str) -> None:
    """Nobody can be asked without a terminal: end the program, and name --yes.

    Raises:
        SystemExit: standard input is no terminal.
    """
    if not sys.stdin.isatty():
        raise fail(f"{what}, and without a terminal nobody can be asked: say --yes", USAGE)


def _unreachable(error: Unavailable) -> str:
    server, _, rest = str(error).partition(": ")
    if not server.startswith(("http://", "https://")) or not isinstance(error.__cause__, OSError):
        return str(error)
    if re.match(r"https?://(127\.|localhost|\[::1\])", server):
        return f"no heddle answers at {server}; start it with: heddle up"
    return f"no server answers at {server} ({rest}); is it the one that you mean? see --kubeconfig, $KUBECONFIG"


@contextmanager
def told() -> Iterator[None]:
    """Errors of the API become one line and an exit code; nobody sees a traceback."""
    try:
        yield
    except Invalid as error:
        if len(error.causes) > 1:
            lines = "".join(f"\n  {cause.field}: {cause.message}" for cause in error.causes)
            raise fail(
                f"{error.status.message.split(' is invalid')[0]} has {len(error.causes)} faults:{lines}"
            ) from None
        raise fail(str(error)) from None
    except NotFound as error:
        raise fail(str(error), MISSING) from None
    except Unavailable as error:
        raise fail(_unreachable(error), UNREACHABLE) from None
    except ApiError as error:
        raise fail(str(error)) from None
    except BrokenPipeError:
        quiet_end()
        raise SystemExit(0) from None
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None


def quiet_end() -> None:
    """Nobody reads standard output any more: let nothing complain of it when the program ends."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
