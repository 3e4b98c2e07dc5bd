"""Compiles the library when the project is built or installed; a hook of hatchling.

The first compiler that works is used: `$CC`, cc, gcc, clang, or the one of the package ziglang.
Without any, the project is built without the library, and everything works by its Python code.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path(__file__).parent
FLAGS = ("-std=gnu11", "-O2", "-fPIC", "-shared", "-fvisibility=hidden")


def compilers() -> Iterator[list[str]]:
    """Yields the commands of all compilers that this machine may have, the best first."""
    if named := os.environ.get("CC"):
        yield shlex.split(named)
    for name in ("cc", "gcc", "clang"):
        if shutil.which(name):
            yield [name]
    if util.find_spec("ziglang") is not None:
        yield [sys.executable, "-m", "ziglang", "cc"]


def compile_library(target: Path) -> list[str]:
    """Compiles the library to a path; returns the failures, of which the last is no success."""
    failures: list[str] = []
    made = target.with_name("kernel.new")
    for command in compilers():
        whole = [*command, *FLAGS, "-o", str(made), str(FOLDER / "kernel.c")]
        try:
            subprocess.run(whole, check=True, capture_output=True, text=True)  # noqa: S603
        except (OSError, subprocess.CalledProcessError) as error:
            failures.append(f"{shlex.join(command)}: {getattr(error, 'stderr', '') or error}")
            continue
        # Renamed, because a process may have the library of before in use.
        made.replace(target)
        return []
    return failures or ["no C compiler was found"]


class BuildHook(BuildHookInterface[Any]):
    """Adds the library to a wheel, which then fits one platform and every version of Python 3."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        target = FOLDER / "kernel.library"
        failures = compile_library(target)
        if failures:
            target.unlink(missing_ok=True)
            reasons = "; ".join(failures)
            self.app.display_warning(f"built without the compiled library: {reasons}")
            return
        build_data["artifacts"].append("exporter/native/kernel.library")
        build_data["pure_python"] = False
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{platform}"
