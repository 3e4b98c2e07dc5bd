"""The ceiling on what one child may hold, so that a runaway slice ends alone."""

from __future__ import annotations

import resource


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
