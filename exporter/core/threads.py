"""Work beside the slice's own thread, which may leave it behind at any moment."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from concurrent import futures
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")

POLL_SECONDS = 0.5
"""Seconds between two questions whether to wait on."""
STACK = 2 * 1024 * 1024
"""Bytes for each thread. The usual 8 MiB count as data of the process, and a dozen threads would
take a good part of what a worker may hold."""

_starting = threading.Lock()


def start(call: Callable[[], T], name: str) -> Future[T]:
    """What `call` returns or raises, from a thread of its own that keeps no process alive.

    It runs in a copy of this context: the guard of the object store and the words of the log go
    along.
    """
    outcome: Future[T] = Future()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            outcome.set_result(context.run(call))
        except BaseException as error:  # noqa: BLE001 - raised by whoever asks for the outcome
            outcome.set_exception(error)

    thread = threading.Thread(target=run, name=name, daemon=True)
    with _starting:
        usual = threading.stack_size(STACK)
        try:
            thread.start()
        finally:
            threading.stack_size(usual)
    return outcome


def wait(outcome: Future[T], go_on: Callable[[], bool]) -> bool:
    """Whether the outcome is there; False as soon as `go_on`, asked now and then, says so."""
    while not futures.wait((outcome,), POLL_SECONDS).done:
        if not go_on():
            return False
    return True
