"""Runs single calls in background threads; a caller may stop waiting for its call at any time.

A thread whose call has ended is kept for the next call. The number of threads has no bound: a call
never waits for a thread, so a call that hangs holds up no other.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import threading
from collections.abc import Callable
from concurrent import futures
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

POLL_SECONDS = 0.5
"""Seconds between two calls of `should_continue` while `wait` waits."""
IDLE_SECONDS = 10.0
"""Time after which a thread without a call ends."""
STACK_BYTES = 2 * 1024 * 1024
"""Size of the stack of each thread.

The default of 8 MiB counts as data of the process: the stacks of a dozen threads would be a large
share of the worker's memory limit.
"""


class _Call:
    """A call, the context in which it runs, and the future of its result."""

    def __init__(self, call: Callable[[], Any], name: str) -> None:
        self.outcome: Future[Any] = Future()
        self.name = name
        self._call = call
        self._context = contextvars.copy_context()

    def run(self) -> None:
        try:
            threading.current_thread().name = self.name
            self.outcome.set_result(self._context.run(self._call))
        except BaseException as error:  # noqa: BLE001 - raised by `Future.result`
            self.outcome.set_exception(error)


class _Threads:
    """The threads of this process that have no call, the latest to be idle last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[SimpleQueue[_Call]] = []
        """The queue of each idle thread, which holds at most the next call of that thread."""

    def run(self, call: _Call) -> None:
        with self._lock:
            if self._idle:
                self._idle.pop().put(call)
                return
            default = threading.stack_size(STACK_BYTES)
            try:
                calls: SimpleQueue[_Call] = SimpleQueue()
                calls.put(call)
                threading.Thread(target=self._work, args=(calls,), daemon=True).start()
            finally:
                threading.stack_size(default)

    def _work(self, calls: SimpleQueue[_Call]) -> None:
        try:
            while self._next(calls):
                with self._lock:
                    self._idle.append(calls)
        finally:
            # Also when there is no memory: no call may be given to a thread that has ended.
            with self._lock:
                if calls in self._idle:
                    self._idle.remove(calls)
            with contextlib.suppress(Empty):
                calls.get_nowait().outcome.set_exception(RuntimeError("its thread has ended"))

    def _next(self, calls: SimpleQueue[_Call]) -> bool:
        """Runs the next call, of which nothing is kept; returns False if none came in time."""
        try:
            call = calls.get(timeout=IDLE_SECONDS)
        except Empty:
            with self._lock:
                if calls in self._idle:
                    self._idle.remove(calls)
                    return False
            call = calls.get()  # came just as the time was over
        call.run()
        return True


_threads = _Threads()


def _forget() -> None:
    """Forgets all threads: a forked child has none of those of its parent."""
    global _threads
    _threads = _Threads()


os.register_at_fork(after_in_child=_forget)


def start(call: Callable[[], T], name: str) -> Future[T]:
    """Runs `call` in a daemon thread and returns a future of its result.

    The future holds the return value of `call`, or the exception that it raised. The call runs in a
    copy of the caller's context (contextvars), so the object store's guard and the fields bound to
    the log apply to it too. While it runs, the thread has the name `name`.
    """
    started = _Call(call, name)
    _threads.run(started)
    return started.outcome


def wait(outcome: Future[T], should_continue: Callable[[], bool]) -> bool:
    """Waits for the future and returns True when it is done.

    While the future is not done, `should_continue` is called every POLL_SECONDS. If it returns
    False, the wait ends and this function returns False; the thread of the future keeps running.
    """
    while True:
        try:
            outcome.exception(POLL_SECONDS)
        except futures.TimeoutError:
            if not should_continue():
                return False
        else:
            return True
