"""The ceiling on a child's data is real, and can be lifted to tell of it."""

from __future__ import annotations

import subprocess
import sys

HUNGRY = """
from workers import memory
memory.bound({ceiling})
kept = []
try:
    for _ in range(64):
        kept.append(bytearray(16 * 1024**2))
    print("had all of it")
except MemoryError:
    print("stopped at", 16 * len(kept))
    memory.ease()
    kept.append(bytearray(512 * 1024**2))
    print("eased")
"""


def _hungry(ceiling: int) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", HUNGRY.format(ceiling=ceiling)],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def test_a_process_that_wants_more_than_its_ceiling_gets_a_memory_error() -> None:
    # When
    stopped, eased = _hungry(256 * 1024**2)
    # Then
    assert 64 <= int(stopped.rpartition(" ")[2]) <= 256
    assert eased == "eased"


def test_without_a_ceiling_there_is_none() -> None:
    # When / Then
    assert _hungry(0) == ["had all of it"]
