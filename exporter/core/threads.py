"""Runs single calls in background threads; a caller may stop waiting for its call at any time."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from concurrent import futures
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")

POLL_SECONDS = 0.5
"""Seconds between two calls of `should_continue` while `wait` waits."""
STACK_BYTES = 2 * 1024 * 1024
"""Size of the stack of each thread.

The default of 8 MiB counts as data of the process: the stacks of a dozen threads would be a large
share of the worker's memory limit.
"""

_starting = threading.Lock()


def start(call: Callable[[], T], name: str) -> Future[T]:
    """Runs `call` in a new daemon thread and returns a future of its result.

    The future holds the return value of `call`, or the exception that it raised. The call runs in a
    copy of the caller's context (contextvars), so the object store's guard and the fields bound to
    the log apply to it too.
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
    """Waits for the future and returns True when it is done.

    While the future is not done, `should_continue` is called every POLL_SECONDS. If it returns
    False, the wait ends and this function returns False; the thread of the future keeps running.
    """
    while not futures.wait((outcome,), POLL_SECONDS).done:
        if not should_continue():
            return False
    return True
