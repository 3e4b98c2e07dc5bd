"""Background threads: kept for the next call, never waited for, and none after a fork."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from contextvars import ContextVar

import pytest

from exporter.core import threads
from tests.waiting import until

NAMES = ContextVar("names", default="nobody")


@pytest.fixture(autouse=True)
def own(monkeypatch: pytest.MonkeyPatch) -> threads._Threads:
    """Gives each test threads of its own."""
    own = threads._Threads()
    monkeypatch.setattr(threads, "_threads", own)
    return own


def settle(own: threads._Threads, count: int) -> None:
    until(lambda: len(own._idle) == count)


@pytest.mark.external
def test_a_thread_is_used_again_under_the_name_of_its_call(own: threads._Threads) -> None:
    # When
    found = []
    for name in ("page", "piece", "page"):
        outcome = threads.start(threading.current_thread, name)
        thread = outcome.result(5)
        settle(own, 1)
        found.append((thread.ident, thread.name, thread.daemon))
    # Then
    assert {ident for ident, _, _ in found} == {found[0][0]}
    assert [(name, daemon) for _, name, daemon in found] == [
        ("page", True),
        ("piece", True),
        ("page", True),
    ]


@pytest.mark.external
def test_no_call_is_given_to_a_thread_that_has_ended_for_want_of_memory(
    own: threads._Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given: an idle thread, which ends by an error of its own
    def fail(_: object) -> bool:
        raise MemoryError

    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    threads.start(int, "page").result(5)
    settle(own, 1)
    monkeypatch.setattr(own, "_next", fail)
    threads.start(int, "page").result(5)
    # When
    settle(own, 0)
    monkeypatch.undo()
    # Then
    assert threads.start(int, "page").result(5) == 0


@pytest.mark.external
def test_calls_that_hang_hold_up_no_other_call() -> None:
    # Given
    release = threading.Event()
    hanging = [threads.start(lambda: release.wait(30), "page") for _ in range(20)]
    # When
    answer = threads.start(lambda: "well", "piece").result(5)
    # Then
    assert answer == "well"
    assert not any(one.done() for one in hanging)
    release.set()


@pytest.mark.external
def test_an_error_reaches_the_caller_and_leaves_the_thread_usable(own: threads._Threads) -> None:
    # Given
    def dies() -> None:
        raise SystemExit(3)

    # When
    failed = threads.start(dies, "page")
    # Then
    assert isinstance(failed.exception(5), SystemExit)
    settle(own, 1)
    assert threads.start(lambda: 1, "page").result(5) == 1
    settle(own, 1)


@pytest.mark.external
def test_each_call_has_the_context_of_its_caller_only(own: threads._Threads) -> None:
    # Given
    def changes() -> str:
        before = NAMES.get()
        NAMES.set("changed by a call")
        return before

    # When
    seen = []
    for name in ("ann", "bob"):
        NAMES.set(name)
        seen.append(threads.start(changes, "page").result(5))
        settle(own, 1)
    # Then
    assert seen == ["ann", "bob"]
    assert NAMES.get() == "bob"


@pytest.mark.external
def test_an_idle_thread_holds_nothing_of_its_last_call(own: threads._Threads) -> None:
    # Given
    class Page:
        pass

    outcome = threads.start(Page, "page")
    page = weakref.ref(outcome.result(5))
    # When
    del outcome
    settle(own, 1)
    gc.collect()
    # Then
    assert page() is None


@pytest.mark.external
def test_an_idle_thread_ends_after_a_while(
    own: threads._Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    monkeypatch.setattr(threads, "IDLE_SECONDS", 0.01)
    thread = threads.start(threading.current_thread, "page").result(5)
    # When
    thread.join(5)
    # Then
    assert not thread.is_alive()
    assert own._idle == []
    assert threads.start(lambda: 1, "page").result(5) == 1


@pytest.mark.external
def test_calls_that_come_just_when_threads_end_all_run(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given: threads that end as soon as they have no call
    monkeypatch.setattr(threads, "IDLE_SECONDS", 0.0)
    # When
    found = [threads.start(lambda n=number: n, "page").result(5) for number in range(2_000)]  # type: ignore[misc]
    # Then
    assert found == list(range(2_000))


@pytest.mark.external
def test_a_forked_child_uses_no_thread_of_its_parent(own: threads._Threads) -> None:
    # Given
    threads.start(lambda: None, "page").result(5)
    settle(own, 1)
    # When
    child = os.fork()
    if child == 0:
        answer = 1
        try:
            answer = threads.start(lambda: 0, "page").result(5)
        finally:
            os._exit(answer)
    # Then
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
