"""Flag of a worker that shuts down: each slice then releases its export at the next page.

A slice is the work of one child process on one claimed export.
"""

from __future__ import annotations

import multiprocessing

from celery.signals import worker_shutting_down

# Created at import, before the pool forks, so that parent and children share the memory.
_flag = multiprocessing.Value("b", 0, lock=False)


@worker_shutting_down.connect
def request(**_: object) -> None:
    """Sets the flag, so that all processes of this worker release their exports."""
    _flag.value = 1


def requested() -> bool:
    """True if this worker is shutting down."""
    return bool(_flag.value)
