"""Activity of a worker's child processes, in memory that its main process can read."""

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
    """Marks the slot of this new child process as idle; its previous child may have died busy."""
    _busy[_slot()] = 0


def record_claim() -> None:
    """Records that a child process received a doorbell and now claims work."""
    # The monotonic clock is shared by all processes of the machine.
    _claimed_at.value = time.monotonic()


@contextmanager
def busy() -> Iterator[None]:
    """Marks the slot of this child process as busy inside the block."""
    _busy[_slot()] = 1
    try:
        yield
    finally:
        _busy[_slot()] = 0


def last_claim() -> float:
    """Returns the monotonic time of the latest claim of any child; 0 if there was none."""
    return float(_claimed_at.value)


def count_idle(slots: int) -> int:
    """Returns the number of idle slots among the first `slots` slots."""
    return slots - sum(map(int, _busy[:slots]))


def _slot() -> int:
    # The pool numbers its children and reuses the number of a dead child. A process that is not a
    # child of a pool, as in tests, has no number and uses slot 0.
    return int(getattr(current_process(), "index", 0))
