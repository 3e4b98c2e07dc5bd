"""Wheel and sdist install without an index, with the library where there is a C compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CC = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
PIP = ("-m", "pip", "--disable-pip-version-check")
WRITE = """
from exporter.core.buffers import Buffer
from exporter.core.checkpoints import RowCounts
from exporter.core.exports import Dialect
from exporter.formats.base import State
from exporter.formats.csv import Csv
from exporter.native import library, pages
body = b'{"jobs":[{"a":"x, y","b":[1]},{"b":null}]}'
cut = pages.cut(body, ["jobs"], None)
rows = cut.rows if cut else [b'{"a":"x, y","b":[1]}', b'{"b":null}']
out = Buffer()
Csv(["a", "b"], Dialect()).encode(rows, RowCounts(), State(), out)
print(pages.__file__, library.find()[0] is not None, bytes(out))
"""
WRITTEN = str(b'"x, y",[1]\r\n,\r\n')


def run(*arguments: object, cwd: Path, env: Mapping[str, str]) -> str:
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked sdist."""
    folder = tmp_path_factory.mktemp("sdist")
    run("-m", "hatchling", "build", "-t", "sdist", "-d", folder, cwd=ROOT, env=os.environ)
    (archive,) = folder.iterdir()
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    (unpacked,) = (one for one in folder.iterdir() if one.is_dir())
    return unpacked


@pytest.fixture
def with_compiler() -> Mapping[str, str]:
    if CC is None:
        pytest.skip("there is no C compiler on this machine")
    return {**os.environ, "CC": CC}


@pytest.fixture
def without_compiler(tmp_path: Path) -> Mapping[str, str]:
    env = {name: value for name, value in os.environ.items() if name != "CC"}
    return {**env, "PATH": str(tmp_path)}


def written(wheel: Path, folder: Path) -> str:
    """Installs the wheel, and returns what the program prints, outside of the checkout."""
    target = folder / "target"
    command = (*PIP, "install", "--no-index", "--no-deps", "--no-compile", "--target", target)
    run(*command, wheel, cwd=folder, env=os.environ)
    env = {name: value for name, value in os.environ.items() if name != "EXPORTER_NATIVE"}
    return run("-c", WRITE, cwd=folder, env={**env, "PYTHONPATH": str(target)})


def built(source: Path, folder: Path, env: Mapping[str, str]) -> tuple[Path, str]:
    wheels = folder / "wheels"
    said = run("-m", "hatchling", "build", "-t", "wheel", "-d", wheels, cwd=source, env=env)
    (wheel,) = wheels.iterdir()
    return wheel, said


def test_an_sdist_has_the_sources_of_the_library_and_nothing_compiled(sdist: Path) -> None:
    # When
    found = {path.name for path in (sdist / "exporter" / "native").iterdir()}
    compiled = found & {"kernel.library", "kernel.stamp"}
    # Then
    assert {"kernel.c", "build.py", "hook.py"} <= found
    assert not compiled


def test_a_wheel_of_the_sdist_has_the_library_and_fits_this_platform(
    sdist: Path, with_compiler: Mapping[str, str], tmp_path: Path
) -> None:
    # When
    wheel, _ = built(sdist, tmp_path, with_compiler)
    # Then
    assert "-py3-none-" in wheel.name
    assert not wheel.name.endswith("-any.whl")
    with zipfile.ZipFile(wheel) as packed:
        names = packed.namelist()
        assert b"Root-Is-Purelib: false" in packed.read(
            next(name for name in names if name.endswith("/WHEEL"))
        )
    assert {"exporter/native/kernel.library", "exporter/native/kernel.stamp"} <= set(names)
    assert not (sdist / "exporter" / "native" / "kernel.library").exists()
    found = written(wheel, tmp_path)
    assert found.startswith(str(tmp_path))
    assert found.endswith(f" True {WRITTEN}\n")


def test_without_a_compiler_the_wheel_fits_every_platform_and_python_code_serves(
    sdist: Path, without_compiler: Mapping[str, str], tmp_path: Path
) -> None:
    # When
    wheel, said = built(sdist, tmp_path, without_compiler)
    # Then
    assert "built without the compiled library: no C compiler was found" in said
    assert wheel.name.endswith("-py3-none-any.whl")
    found = written(wheel, tmp_path)
    assert found.startswith(str(tmp_path))
    assert found.endswith(f" False {WRITTEN}\n")


def test_a_wheel_for_another_platform_is_not_built_by_another_compiler(
    sdist: Path, without_compiler: Mapping[str, str], tmp_path: Path
) -> None:
    # Given a compiler that fails
    env = {**os.environ, **without_compiler, "CC": "/nowhere/cc"}
    env["WHEEL_PLATFORM"] = "win_amd64"
    # When
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    done = subprocess.run(command, cwd=sdist, env=env, capture_output=True, text=True)
    # Then
    assert done.returncode != 0
    assert "/nowhere/cc: [Errno 2]" in done.stderr
    assert not list(tmp_path.glob("*.whl"))
