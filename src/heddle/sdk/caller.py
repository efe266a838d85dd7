"""What a job takes over from who submits it: the command word for word, the directory, the program path."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

HANDED_ON = ("PATH", "VIRTUAL_ENV")
"""Variables of the caller that a job gets, so that it finds the programs that the caller would."""

_MEANT_BY_KUBERNETES = re.compile(r"\$(?=[$(])|(?<=\$)\$")


def literal(text: str) -> str:
    """Text that Kubernetes' expansion of `$(VAR)` and `$$` turns into `text`, byte for byte."""
    return _MEANT_BY_KUBERNETES.sub("$$", text)


def environment(given: Mapping[str, str] | None) -> dict[str, str]:
    """The variables that are given, and those of the caller that are handed on where they are not."""
    own = {name: os.environ[name] for name in HANDED_ON if name in os.environ}
    return own | dict(given or {})


def directory(given: str | Path) -> str:
    """An absolute path; the caller's directory where none is given."""
    return str(Path(given or ".").absolute())
