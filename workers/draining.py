"""The flag that asks every slice of this worker to hand over at its next page."""

from __future__ import annotations

import multiprocessing

from celery.signals import worker_shutting_down

# Made at import, before the pool forks, so that the children share the parent's memory.
_flag = multiprocessing.Value("b", 0, lock=False)


@worker_shutting_down.connect
def ask(**_: object) -> None:
    """Ask every slice of this worker to hand over."""
    _flag.value = 1


def asked() -> bool:
    """Whether this worker is shutting down."""
    return bool(_flag.value)
