"""Compiles the library; `python -m exporter.native.build` does it where the package is installed.

The first compiler that works is used: `$CC`, cc, gcc, clang, or the one of the package ziglang.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib import util
from pathlib import Path

from exporter.native import library

FOLDER = Path(__file__).parent
FLAGS = ("-std=gnu11", "-O2", "-fPIC", "-shared", "-fvisibility=hidden")
COMPILER_SECONDS = 300.0
"""Longest duration of one compiler for this machine; gcc takes 3 s, ziglang at first a minute."""
_LOAD = "import ctypes, sys; ctypes.CDLL(sys.argv[1])"


class NoCompiler(Exception):
    """Raised if no compiler has made a library; the text says why, on one line."""


def compilers() -> Iterator[str]:
    """Yields the commands of all compilers that this machine may have, the best first."""
    if named := os.environ.get("CC", "").strip():
        yield named
    yield from filter(shutil.which, ("cc", "gcc", "clang"))
    if util.find_spec("ziglang") is not None:
        yield shlex.join([sys.executable, "-m", "ziglang", "cc"])


def compile_library(target: Path, foreign: str | None = None) -> list[str]:
    """Compiles the library to a path, with its stamp; returns the failures before the success.

    Every compiler is tried until the library that it made can be loaded. `foreign` is the only
    compiler to try if the library is for another platform, where it cannot be loaded. Raises
    NoCompiler, and leaves what was there, if none works.
    """
    failures: list[str] = []
    made = target.with_name(f"kernel.new.{os.getpid()}")
    for command in [foreign] if foreign else compilers():
        try:
            whole = [*shlex.split(command), *FLAGS, "-o", str(made), str(FOLDER / "kernel.c")]
            _run(*whole, seconds=None if foreign else COMPILER_SECONDS)
            if not foreign:
                _run(sys.executable, "-c", _LOAD, str(made), seconds=COMPILER_SECONDS)
            library.stamp_path(target).write_bytes(library.stamp(made))
            # Renamed, because a process may have the library of before in use.
            made.replace(target)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            failures.append(f"{command}: {_reason(error)}")
        else:
            return failures
        finally:
            made.unlink(missing_ok=True)
    raise NoCompiler("; ".join(failures) or "no C compiler was found")


def _run(*command: str, seconds: float | None) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds)  # noqa: S603


def _reason(error: Exception) -> str:
    """Returns the line of an error that names its cause."""
    said = error.stderr if isinstance(error, subprocess.CalledProcessError) else ""
    lines = said.strip().splitlines() or [str(error)]
    return next((line for line in lines if "error" in line.lower()), lines[-1]).strip()[:200]


def main() -> None:
    """Compiles the library where it is looked for; exits with 1 and the reason if it cannot.

    With `--if-missing`, does nothing if there is a library that can be used.
    """
    if sys.argv[1:] == ["--if-missing"]:
        with suppress(OSError):
            library.load()
            return
    try:
        failures = compile_library(library.PATH)
    except NoCompiler as error:
        sys.exit(
            f"The compiled library was not built: {error}. All works without it, but rows cost 3 "
            f"to 10 times the processor time. With gcc: {sys.executable} -m exporter.native.build"
        )
    sys.stdout.write("".join(f"{one}\n" for one in [*failures, "The compiled library was built."]))


if __name__ == "__main__":
    main()
