"""Generators of clients in other languages, which are no part of .venv: `fetch` gets them."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NPM = HERE / ".generators" / "node_modules"
PYTHON = HERE / ".generators" / "python"
TSC = [
    "--strict",
    "--skipLibCheck",
    "--target",
    "es2022",
    "--module",
    "nodenext",
    "--noEmitOnError",
]


def fetch() -> None:
    """Gets the generators; without them the test is skipped, but fails where CI is set."""
    with (HERE / "fetch").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        env = {**os.environ, "PYTHON": sys.executable}
        done = subprocess.run(["sh", HERE / "fetch"], env=env, capture_output=True, text=True)
    if done.returncode != 0:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"no generators: {done.stderr}")


def run(*command: object, cwd: Path, env: Mapping[str, str] = {}) -> str:
    """Runs a command to its end and returns what it wrote; it must succeed."""
    done = subprocess.run(
        [str(one) for one in command],
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def program_of_guide() -> str:
    """Returns the TypeScript that the guide shows."""
    guide = resources.files("exporter.api.openapi").joinpath("guide.md").read_text("utf-8")
    _, _, rest = guide.partition("```ts\n")
    return rest.partition("```")[0]


def compile_typescript(folder: Path, name: str, source: str, *options: str) -> Path:
    """Returns the JavaScript of a program; it imports the types from ./exports."""
    (folder / "node_modules").symlink_to(NPM)
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / f"{name}.ts").write_text(source)
    run(NPM / ".bin" / "tsc", *TSC, *options, f"{name}.ts", cwd=folder)
    return folder / f"{name}.js"
