"""Background threads for one call each, which their caller may abandon at any time."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from concurrent import futures
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")

POLL_SECONDS = 0.5
"""Time between two checks whether to continue waiting."""
STACK_BYTES = 2 * 1024 * 1024
"""Stack size of each thread.

The default of 8 MiB counts as data of the process: the stacks of a dozen threads would be a large
share of the worker's memory limit.
"""

_starting = threading.Lock()


def start(call: Callable[[], T], name: str) -> Future[T]:
    """Runs `call` in a new daemon thread; the future gets its return value or exception.

    The call runs in a copy of the current context (contextvars), so that the object store's guard
    and the log's bound fields apply to it as well.
    """
    outcome: Future[T] = Future()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            outcome.set_result(context.run(call))
        except BaseException as error:  # noqa: BLE001 - raised by `Future.result`
            outcome.set_exception(error)

    thread = threading.Thread(target=run, name=name, daemon=True)
    with _starting:
        default = threading.stack_size(STACK_BYTES)
        try:
            thread.start()
        finally:
            threading.stack_size(default)
    return outcome


def wait(outcome: Future[T], should_continue: Callable[[], bool]) -> bool:
    """Waits until the future is done; True if it is, False once `should_continue` returns False.

    `should_continue` is called every POLL_SECONDS.
    """
    while not futures.wait((outcome,), POLL_SECONDS).done:
        if not should_continue():
            return False
    return True
