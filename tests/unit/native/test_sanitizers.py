"""The library reads and writes no byte beyond its memory, whatever a page has."""

from __future__ import annotations

import os
import random
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from exporter.native import build

pytestmark = pytest.mark.external

ROOT = Path(__file__).parents[3]
FLAGS = (
    *("-std=gnu11", "-O1", "-g", "-fPIC", "-shared", "-fvisibility=hidden"),
    *("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
)


def runtime(command: list[str]) -> str | None:
    """Returns the path of a compiler's library of AddressSanitizer, or None."""
    for name in ("libasan.so", "libclang_rt.asan-x86_64.so", "libclang_rt.asan-aarch64.so"):
        asked = [*command, f"-print-file-name={name}"]
        found = subprocess.run(asked, check=False, capture_output=True, text=True).stdout.strip()
        if Path(found).is_absolute() and Path(found).exists():
            return found
    return None


def sanitized(source: Path, target: Path) -> str:
    """Compiles the library with sanitizers; returns what a process must load before it."""
    for command in map(shlex.split, build.compilers()):
        if loaded := runtime(command):
            whole = [*command, *FLAGS, "-o", str(target), str(source / "kernel.c")]
            done = subprocess.run(whole, check=False, capture_output=True, text=True)
            if done.returncode == 0:
                return loaded
    pytest.skip("no compiler of this machine has AddressSanitizer")


def fuzzed(library: Path, loaded: str, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "LD_PRELOAD": loaded,
        "ASAN_OPTIONS": "detect_leaks=0",
        # Python's own allocator would hide reads and writes beyond the end of an object.
        "PYTHONMALLOC": "malloc",
    }
    command = [sys.executable, "-m", "tests.odd_pages", "--library", str(library), *options]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, env=environment, cwd=ROOT
    )


def test_random_pages_are_read_and_written_within_memory(tmp_path: Path) -> None:
    # Given
    library = tmp_path / "kernel.library"
    loaded = sanitized(build.FOLDER, library)
    seed = str(random.SystemRandom().randrange(2**32))
    print("random seed:", seed)  # noqa: T201
    for chosen in ("1", seed):
        # When
        done = fuzzed(library, loaded, "--seconds", "10", "--seed", chosen)
        # Then
        assert done.returncode == 0, done.stdout + done.stderr
        assert "compared" in done.stdout


def test_a_write_beyond_memory_would_be_found(tmp_path: Path) -> None:
    # Given: a library that asks for too little room
    source = tmp_path / "source"
    shutil.copytree(build.FOLDER, source, ignore=shutil.ignore_patterns("*.py", "*.library"))
    text = (source / "csv.h").read_text()
    sound, planted = "size += 3ull * page->rows[i].size *", "size += 0ull * page->rows[i].size *"
    assert sound in text
    (source / "csv.h").write_text(text.replace(sound, planted))
    library = tmp_path / "kernel.library"
    loaded = sanitized(source, library)
    # When
    done = fuzzed(library, loaded, "--seconds", "10", "--seed", "1")
    # Then
    assert done.returncode != 0
    assert "ERROR: AddressSanitizer" in done.stderr
    assert "in csv_write" in done.stderr
