"""Compiles the engine's hot modules with mypyc where ``HEDDLE_COMPILE=1`` says so; without it heddle is pure Python.

``HEDDLE_COMPILE=1 pip install .`` makes a wheel for this machine's kind; ``make compile`` puts the compiled modules
beside their sources, where Python prefers them (and the tests refuse to run once a source is newer). A C compiler is
needed.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = Path("heddle/engine")
_MYPY = ("--strict", "--ignore-missing-imports", "--follow-imports=silent", "--config-file=")
"""The engine alone is looked at: what others need is not there while a wheel is built."""
AS_THEY_ARE = {
    "__init__.py",
    "explain.py",
    "model.py",  # what callers hand in is checked by code, with a message, not by the type of a compiled field
    "plan.py",
    "rankings.py",
    "reasons.py",
    "scenario.py",
    "snapshot.py",
    "trials.py",
    "usage.py",
}
"""Modules that stay Python: no hot path, or values that callers make."""


def sources(src: Path) -> list[str]:
    """The modules to compile, relative to ``src``."""
    found = (path for path in sorted((src / PACKAGE).rglob("*.py")) if path.name not in AS_THEY_ARE)
    return [str(path.relative_to(src)) for path in found]


def compile_engine(src: Path, into: Path) -> list[Path]:
    """Compiles the engine into a folder laid out like ``src``; returns the files made, relative to it.

    Raises:
        SystemExit: mypyc or the C compiler refused.
    """
    from mypyc.build import mypycify
    from setuptools import Distribution

    with TemporaryDirectory() as temporary:
        before = Path.cwd()
        os.chdir(src)  # module names follow from paths
        try:
            extensions = mypycify(
                [*_MYPY, f"--cache-dir={temporary}", *sources(src)],
                target_dir=temporary,
                group_name="heddle_engine",
                opt_level="2",
                debug_level="0",
            )
            command = Distribution({"name": "heddle", "ext_modules": extensions}).get_command_obj("build_ext")
            command.build_lib, command.build_temp = str(into), temporary
            command.ensure_finalized()
            command.run()
        finally:
            os.chdir(before)
    return [path.relative_to(into) for path in sorted(into.rglob("*.so"))]


class CompileHook(BuildHookInterface[Any]):
    """Adds compiled modules to a wheel, or puts them beside their sources where the installation is editable."""

    def dependencies(self) -> list[str]:
        """What compiling needs of the build's environment."""
        types = [each for each in self.metadata.core.dependencies if each.startswith("numpy")]
        return ["mypy>=1.14", "setuptools", *types] if _wanted() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it collects files."""
        if not _wanted() or self.target_name != "wheel":
            return
        src = Path(self.root) / "src"
        made = Path(self.root) / "build" / "compiled"
        shutil.rmtree(made, ignore_errors=True)
        files = compile_engine(src, made)
        if version == "editable":
            for file in files:
                shutil.copy2(made / file, src / file)
            return
        build_data["pure_python"], build_data["infer_tag"] = False, True
        build_data["force_include"].update({str(made / file): str(file) for file in files})


def _wanted() -> bool:
    return os.environ.get("HEDDLE_COMPILE", "") not in ("", "0")
