"""Exit codes, and errors as one line with a remedy."""

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
        raise fail(str(error), UNREACHABLE) from None
    except ApiError as error:
        raise fail(str(error)) from None
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(0) from None
