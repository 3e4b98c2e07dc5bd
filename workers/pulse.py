"""What the children of a worker do, as its main process sees it."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager

from billiard.process import current_process

from exporter.settings import MAX_CONCURRENCY

# Made at import, before the pool forks, so that the children share the parent's memory. Without
# locks: a child that is killed while it holds one would stop all others.
_claimed_at = multiprocessing.Value("d", 0.0, lock=False)
_busy = multiprocessing.Array("b", MAX_CONCURRENCY, lock=False)


def begin() -> None:
    """This child is new in its slot, whatever became of the one before."""
    _busy[_slot()] = 0


def claiming() -> None:
    """This child heard a doorbell and asks for work."""
    # The monotonic clock is the machine's, so parent and children read the same one.
    _claimed_at.value = time.monotonic()


@contextmanager
def busy() -> Iterator[None]:
    """Within this block this child's slot is not idle."""
    _busy[_slot()] = 1
    try:
        yield
    finally:
        _busy[_slot()] = 0


def last_claim() -> float:
    """When a child last asked for work, by the monotonic clock; 0 if none ever did."""
    return float(_claimed_at.value)


def idle(slots: int) -> int:
    """How many of the first `slots` slots do nothing."""
    return slots - sum(map(int, _busy[:slots]))


def _slot() -> int:
    # The pool numbers its children and gives a dead one's number to its successor. A process
    # that is no child, as in tests, has none.
    return int(getattr(current_process(), "index", 0))
