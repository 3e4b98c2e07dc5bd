"""The ceiling on a child's data is real, and can be lifted to tell of it; below, memory is flat."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.external

HUNGRY = """
from workers import memory
memory.set_ceiling({ceiling})
kept = []
try:
    for _ in range(64):
        kept.append(bytearray(16 * 1024**2))
    print("had all of it")
except MemoryError:
    print("stopped at", 16 * len(kept))
    memory.lift_ceiling()
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


GAPS = """
from workers import memory
{first}
def resident():
    line = next(line for line in open("/proc/self/status") if line.startswith("VmRSS"))
    return int(line.split()[1]) // 1024
bytearray(8 * 1024**2)
begun = resident()
kept = []
for _ in range(16):
    large = bytearray(4 * 1024**2)
    large[::4096] = b"x" * 1024
    kept += large, bytearray(4096)
del large
del kept[::2]
print(resident() - begun)
"""
HEAPS = """
import threading
from workers import memory
{first}
def mapped():
    line = next(line for line in open("/proc/self/status") if line.startswith("VmSize"))
    return int(line.split()[1]) // 1024
threading.stack_size(256 * 1024)
begun = mapped()
together = threading.Barrier(8)
def work():
    together.wait()
    kept = [bytearray(600_000) for _ in range(4)]
    together.wait()
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(mapped() - begun)
"""


def _mib(program: str, *, steady: bool) -> int:
    """What the program prints, with the process made steady at first or not."""
    first = "memory.tune_allocator()" if steady else ""
    done = subprocess.run(
        [sys.executable, "-c", program.format(first=first)],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


def test_large_blocks_that_are_given_up_leave_no_gaps_behind_small_ones() -> None:
    # Given / When: 64 MiB are given up, a small block after every 4 MiB is not
    usual, steady = _mib(GAPS, steady=False), _mib(GAPS, steady=True)
    # Then
    assert steady < 8
    assert usual > 32, "the allocator of this system needs no telling"


def test_threads_take_from_one_heap() -> None:
    # Given / When: eight threads hold some pages each
    usual, steady = _mib(HEAPS, steady=False), _mib(HEAPS, steady=True)
    # Then: a heap of a thread's own takes 64 MiB of addresses
    assert steady < 64
    assert usual > 64, "the allocator of this system needs no telling"
