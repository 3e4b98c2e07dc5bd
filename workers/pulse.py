"""Which child processes of a worker are busy, in memory shared with its main process."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager

from billiard.process import current_process

from exporter.settings import MAX_CONCURRENCY

# Created at import, before the pool forks, so that parent and children share the memory. The number
# of children is not known then, so there is a place for the largest number. Without locks: a child
# that is killed while it holds a lock would block all other children.
_claimed_at = multiprocessing.Value("d", 0.0, lock=False)
_busy = multiprocessing.Array("b", MAX_CONCURRENCY, lock=False)


def reset_slot() -> None:
    """Marks this new child process as idle.

    Its slot (place in the worker's pool) may still be marked as busy, because the previous child
    process in this slot died while it was busy.
    """
    _busy[_slot()] = 0


def record_claim() -> None:
    """Records the current time: a child process was woken by a message and now claims work."""
    # The monotonic clock is shared by all processes of the machine.
    _claimed_at.value = time.monotonic()


@contextmanager
def busy() -> Iterator[None]:
    """Context manager that marks this child process as busy inside its block."""
    _busy[_slot()] = 1
    try:
        yield
    finally:
        _busy[_slot()] = 0


def last_claim() -> float:
    """Returns the time of the latest claim of any child process, by the monotonic clock.

    Returns 0 if no child process has claimed work yet.
    """
    return float(_claimed_at.value)


def count_idle(slots: int) -> int:
    """Returns the number of child processes that are idle, where `slots` is the number of all."""
    return slots - sum(map(int, _busy[:slots]))


def _slot() -> int:
    # The pool numbers its children and reuses the number of a dead child. A process that is not a
    # child of a pool, as in tests, has no number and uses slot 0.
    return int(getattr(current_process(), "index", 0))
