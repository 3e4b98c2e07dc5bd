"""Children end when they should, and never live longer than who started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from exporter.local.children import Child, ChildError
from tests.waiting import until

SLEEPS = "import time; print('up', flush=True); time.sleep(600)"
MUTE = "import time; time.sleep(600)"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPS}"
FAMILY = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {DEAF!r}]); {SLEEPS}"
FAILS = "import sys; [print('line', n) for n in range(30)]; sys.exit(3)"


def a_child(tmp_path: Path, code: str, *, grace: float = 5.0, start_timeout: float = 20.0) -> Child:
    log = tmp_path / "logs" / "child.log"
    return Child(
        "child",
        [sys.executable, "-c", code],
        log,
        answers=lambda: b"up" in log.read_bytes(),
        env={},
        grace=grace,
        start_timeout=start_timeout,
    )


def is_alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_a_child_ends_at_sigterm_and_is_gone_when_stop_returns(tmp_path: Path) -> None:
    # Given
    child = a_child(tmp_path, SLEEPS)
    child.start()
    pid = child.pid

    # When
    begin = time.monotonic()
    child.stop()

    # Then
    assert time.monotonic() - begin < 4
    assert not psutil.pid_exists(pid)


def test_a_child_that_ignores_sigterm_is_killed_after_its_grace(tmp_path: Path) -> None:
    # Given
    child = a_child(tmp_path, DEAF, grace=0.5)
    child.start()
    pid = child.pid

    # When
    begin = time.monotonic()
    child.stop()

    # Then
    assert 0.4 < time.monotonic() - begin < 5
    assert not psutil.pid_exists(pid)


def test_stop_ends_the_childs_own_children_too(tmp_path: Path) -> None:
    # Given a child whose own child does not listen to SIGTERM
    child = a_child(tmp_path, FAMILY)
    child.start()
    until(lambda: len(psutil.Process(child.pid).children()) == 1)
    grandchild = psutil.Process(child.pid).children()[0].pid

    # When
    child.stop()

    # Then
    until(lambda: not is_alive(grandchild))


def test_a_child_that_ends_by_itself_is_told_with_its_status_and_the_end_of_its_log(
    tmp_path: Path,
) -> None:
    # Given
    child = a_child(tmp_path, FAILS)

    # When
    with pytest.raises(ChildError) as told:
        child.start()

    # Then
    assert "child ended with status 3" in str(told.value)
    assert "line 29" in str(told.value)
    assert "line 10" in str(told.value)
    assert "line 9\n" not in str(told.value)


def test_a_child_that_was_killed_is_told_with_the_signal(tmp_path: Path) -> None:
    # Given
    with a_child(tmp_path, SLEEPS) as child:
        # When
        os.kill(child.pid, signal.SIGKILL)

        # Then
        def told() -> bool:
            try:
                child.check()
            except ChildError as error:
                return "ended by SIGKILL" in str(error)
            return False

        until(told)


def test_a_child_that_never_answers_is_ended_and_told(tmp_path: Path) -> None:
    # Given
    child = a_child(
        tmp_path, f"import os; print(os.getpid(), flush=True); {MUTE}", start_timeout=0.5
    )

    # When
    with pytest.raises(ChildError, match=r"did not answer within 0.5 s. The end of .*:\n\d+"):
        child.start()

    # Then
    assert not psutil.pid_exists(int(child.log.read_text()))
    with pytest.raises(RuntimeError, match="is not running"):
        child.check()


def test_the_log_of_the_run_before_is_kept(tmp_path: Path) -> None:
    # Given
    child = a_child(tmp_path, FAILS)
    with pytest.raises(ChildError):
        child.start()

    # When
    again = a_child(tmp_path, SLEEPS)
    with again:
        # Then
        assert again.log.read_text() == "up\n"
        assert "line 29" in again.log.with_name("child.log.1").read_text()


def test_a_child_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    # Given a process that started a child
    code = (
        "import sys, time; from pathlib import Path;"
        "from exporter.local.children import Child;"
        f"c = Child('x', [sys.executable, '-c', {DEAF!r}], Path({str(tmp_path / 'x.log')!r}),"
        " answers=lambda: True, env={});"
        "c.start(); print(c.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_alive(pid)

        # When
        parent.kill()

        # Then
        until(lambda: not is_alive(pid))


def test_a_running_child_is_not_launched_twice(tmp_path: Path) -> None:
    # Given
    with a_child(tmp_path, SLEEPS) as child:
        pid = child.pid

        # When
        with pytest.raises(RuntimeError, match=f"is already running as process {pid}"):
            child.launch()

        # Then
        assert child.pid == pid
