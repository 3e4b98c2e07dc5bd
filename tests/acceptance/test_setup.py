"""deploy/setup on the Pythons of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = ("deploy", "exporter", "workers", "pyproject.toml", "README.md", "LICENSE")
TOOLS = ("sh", "cat", "cksum", "dirname", "grep", "rm", "sort", "wc")
"""What setup calls, besides Python and git. A compiler is not among them."""


def newest_python() -> str | None:
    """The newest Python from 3.12 on that is on the PATH or that pyenv has."""
    for name in ("python3.14", "python3.13", "python3.12"):
        kept = Path.home().glob(f".pyenv/versions/*/bin/{name}")
        for candidate in filter(None, [shutil.which(name), *map(str, kept)]):
            # A shim of pyenv fails unless its version is chosen.
            if subprocess.run([candidate, "--version"], capture_output=True).returncode == 0:
                return candidate
    return None


@pytest.fixture
def python() -> str:
    found = newest_python()
    if found is None:
        pytest.skip("neither Python 3.12, 3.13 nor 3.14 is on this machine")
    return found


def test_a_newer_python_compiles_all_code_without_a_warning(python: str, tmp_path: Path) -> None:
    # When
    done = subprocess.run(
        [python, "-W", "error", "-m", "compileall", "-q", "-f", "exporter", "workers", "tests"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path)},
        capture_output=True,
        text=True,
    )

    # Then
    assert (done.returncode, done.stdout) == (0, "")


# Minutes where the package index is slow and nothing is cached.
@pytest.mark.soak
@pytest.mark.timeout(600)
def test_setup_needs_no_compiler_on_a_newer_python(python: str, tmp_path: Path) -> None:
    # Given
    root = tmp_path / "a project"
    root.mkdir()
    for part in PARTS:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, root / part)
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None
        (tmp_path / "bin" / tool).symlink_to(found)

    env = {**os.environ, "PATH": str(tmp_path / "bin"), "PYTHON": python}

    # When
    command = [str(root / "deploy" / "setup"), "--run"]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    exporter = str(root / ".venv" / "bin" / "exporter")
    shown = subprocess.run([exporter, "demo", "--help"], env=env, capture_output=True, text=True)

    # Then
    assert done.returncode == 0, done.stderr
    assert shown.returncode == 0, shown.stderr
    assert not list((root / ".venv").glob("**/site-packages/pytest"))

    # Given the same folder as a release called exporter left it
    (packages,) = (root / ".venv").glob("lib/python*/site-packages")
    earlier = packages / "exporter-0.2.0.dist-info"
    earlier.mkdir()
    (earlier / "METADATA").write_text("Metadata-Version: 2.1\nName: exporter\nVersion: 0.2.0\n")
    (earlier / "INSTALLER").write_text("pip\n")
    files = [f"{earlier.name}/{name}" for name in ("INSTALLER", "METADATA", "RECORD")]
    (earlier / "RECORD").write_text(
        "".join(f"{one},,\n" for one in [*files, "../../../bin/exporter"])
    )
    (root / ".venv" / "stamp-run").unlink()

    # When
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    shown = subprocess.run([exporter, "--version"], env=env, capture_output=True, text=True)

    # Then
    assert done.returncode == 0, done.stderr
    assert shown.returncode == 0, shown.stderr
    assert not list(packages.glob("exporter-*.dist-info"))
