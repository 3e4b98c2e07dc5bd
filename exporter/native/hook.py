"""Puts the compiled library into a wheel, and beside its sources in an editable installation.

A hook of hatchling. Without a C compiler the project is built without the library, and everything
works by its Python code. WHEEL_PLATFORM names another platform, for which `$CC` compiles;
then a failure ends the build.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class BuildHook(BuildHookInterface[Any]):
    """Adds the library to a wheel, which then fits one platform and every version of Python 3."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compiles the library, if there is a compiler."""
        sys.path.insert(0, self.root)
        from exporter.native import build, library

        platform = os.environ.get("WHEEL_PLATFORM")
        # Not in the checkout, whose own library may be in use and is for another platform.
        self._folder = TemporaryDirectory(ignore_cleanup_errors=True)
        is_editable = version == "editable"
        target = library.PATH if is_editable else Path(self._folder.name, library.PATH.name)
        try:
            failures = build.compile_library(target, os.environ["CC"] if platform else None)
        except build.NoCompiler as error:
            if platform:
                raise
            self.app.display_warning(f"built without the compiled library: {error}")
            return
        for one in failures:
            self.app.display_warning(one)
        if is_editable:
            return
        for path in (target, library.stamp_path(target)):
            build_data["force_include"][str(path)] = f"exporter/native/{path.name}"
        build_data["pure_python"] = False
        platform = platform or sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{platform}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """Deletes what was compiled."""
        self._folder.cleanup()
