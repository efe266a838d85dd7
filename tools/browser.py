"""The browser that looks at heddle's pages in tests: where it is, and how to get it.

python tools/browser.py            # prints its path
python tools/browser.py install    # installs Debian's, when root and apt-get are there and none is found
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
MISSING = "no Chromium was found (HEDDLE_CHROMIUM names one)"


def find() -> str | None:
    """The path of a Chromium; None = there is none."""
    named = os.environ.get("HEDDLE_CHROMIUM")
    if named is not None:
        return shutil.which(named) if named else None
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def install() -> bool:
    """Whether there is one now. Only a missing one is installed, and only where that needs no questions."""
    if find():
        return True
    if "HEDDLE_CHROMIUM" in os.environ or os.geteuid() != 0 or not shutil.which("apt-get"):
        return False
    get = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=60", "install", "-y", "--no-install-recommends", "chromium"]
    # the lists of a fresh machine are empty or old: they are renewed only when it does not work without
    for commands in ([get], [["apt-get", "-qq", "update"], get]):
        if all(_run(command) for command in commands):
            break
    return find() is not None


def _run(command: list[str]) -> bool:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    quiet = subprocess.DEVNULL
    try:
        return not subprocess.run(
            command, env=environment, stdin=quiet, stdout=quiet, stderr=quiet, timeout=300, check=False
        ).returncode
    except (OSError, subprocess.TimeoutExpired):
        return False


if __name__ == "__main__":
    if sys.argv[1:] == ["install"]:
        install()
    found = find()
    print(found or MISSING)
    sys.exit(found is None)
