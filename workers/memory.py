"""What one child may hold: a ceiling, so that a runaway slice ends alone, and flat below it."""

from __future__ import annotations

import ctypes
import resource

LARGE = 1024 * 1024
"""Bytes from which on a block is taken from the system by itself, and given back at once. The
buffers of parts are; most pages are not, for each such block costs a page fault for every 4 KiB."""
KEPT = 8 * 1024 * 1024
"""Bytes at the top of the heap that stay ours when they are free, for the next pages."""
# malloc.h: one heap for all threads; from where on by itself; how much free top is kept.
_ALLOCATION = {-8: 1, -3: LARGE, -1: KEPT}


def steady() -> None:
    """From here on, what is given up can be used again by every thread, so that the memory of this
    process does not grow with the rows that pass through it.

    glibc has to be told. By itself it gives threads heaps of their own, in which pages of several
    hundred KB leave gaps, and once it has seen a part freed it puts parts there too. A child that
    held 128 MiB after 10,000 rows held 173 after 400,000 and was still growing; so, it held 139 at
    most in a million, for the same processor time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in _ALLOCATION.items():
            mallopt(option, value)


def bound(ceiling: int) -> None:
    """From here on, data of this process beyond `ceiling` bytes is a MemoryError; 0: no ceiling.

    Data is what Linux counts as such: the heap, and private mappings, stacks of threads included.
    """
    _set_soft(ceiling or resource.RLIM_INFINITY)


def ease() -> None:
    """Lift the ceiling, for a process that hit it and has only to tell so and end."""
    _set_soft(resource.RLIM_INFINITY)


def recycle_at(ceiling: int) -> int | None:
    """KiB of resident memory above which a child is replaced between two slices; None: never.

    Half of the ceiling: what a slice leaves behind must not be what the next one trips over.
    """
    return ceiling // 2 // 1024 or None


def _set_soft(limit: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        limit = hard if limit == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
