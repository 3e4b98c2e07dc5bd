"""Child processes that cannot outlive the process that started them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from exporter.errors import ExporterError
from exporter.local import private

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class ChildError(ExporterError):
    """A child process ended on its own or was not ready in time; the text ends with its log."""


class Child:
    """A server process in its own process group that ends with its parent, even after SIGKILL.

    `answers` returns True as soon as the child serves requests. The child must do so within
    `start_timeout` seconds. It gets `grace` seconds between SIGTERM and SIGKILL. Its stdout and
    stderr go to the file `log`; the log of the previous run is kept beside that file as `<log>.1`.
    All files that the child creates are readable by their owner only.

    Linux kills the child when the *thread* that launched it ends, so launch the child from a
    thread that lives as long as the child should. On other systems the child survives a SIGKILL of
    its parent.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        *,
        answers: Callable[[], bool],
        env: Mapping[str, str],
        cwd: Path | None = None,
        start_timeout: float = 180.0,
        grace: float = 10.0,
    ) -> None:
        self.name = name
        self.log = log
        self.command = command
        self._answers = answers
        self._env = env
        self._cwd = cwd
        self._start_timeout = start_timeout
        self._grace = grace
        self._process: subprocess.Popen[bytes] | None = None
        self._deadline = 0.0

    @property
    def pid(self) -> int:
        """The id of the process and of its group. Raises RuntimeError if there is no process."""
        if self._process is None:
            raise RuntimeError(f"{self.name} is not running: call start() first.")
        return self._process.pid

    def launch(self) -> None:
        """Starts the process and returns at once. Raises RuntimeError if it is already running."""
        if self._process is not None and self._process.poll() is None:
            raise RuntimeError(f"{self.name} is already running as process {self.pid}.")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists():
            self.log.replace(self.log.with_name(f"{self.log.name}.1"))
        log_file = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, private.FILE_MODE)
        with os.fdopen(log_file, "wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own commands, no shell
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(self._env),
                cwd=self._cwd,
                start_new_session=True,
                umask=private.UMASK,
                preexec_fn=_kill_with_parent(os.getpid()),
            )
        self._deadline = time.monotonic() + self._start_timeout

    def ready(self) -> bool:
        """True if the child answers. Raises ChildError if it has ended or was not ready in time."""
        self.check()
        if self._answers():
            return True
        if time.monotonic() > self._deadline:
            raise ChildError(
                f"{self.name} did not answer within {self._start_timeout:g} s. "
                f"The end of {self.log}:\n{self._tail()}"
            )
        return False

    def check(self) -> None:
        """Raises ChildError, with the exit status and last log lines, if the process has ended."""
        if self._process is None:
            raise RuntimeError(f"{self.name} is not running: call start() first.")
        status = self._process.poll()
        if status is not None:
            how = f"with status {status}" if status >= 0 else f"by {signal.Signals(-status).name}"
            raise ChildError(f"{self.name} ended {how}. The end of {self.log}:\n{self._tail()}")

    def start(self) -> None:
        """Launches the process and waits until it answers.

        Raises ChildError if the process ends or is not ready in time. The process is stopped after
        any error.
        """
        self.launch()
        try:
            while not self.ready():
                time.sleep(0.05)
        except BaseException:
            self.stop()
            raise

    def terminate(self) -> None:
        """Sends SIGTERM to the process, but not to its group. Safe to call repeatedly.

        The group gets no signal because a Celery worker lets its pool processes finish their
        tasks; a pool process that received SIGTERM itself would drop its task.
        """
        if self._process is not None:
            self._process.terminate()

    def stop(self) -> None:
        """Sends SIGTERM, waits up to `grace` seconds, then kills the whole group by SIGKILL."""
        if self._process is None:
            return
        self.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(self._grace)
        self.kill()

    def kill(self) -> None:
        """Ends the process and its group by SIGKILL and waits until the process has ended."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _tail(self) -> str:
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - 16_384))
            lines = log.read().decode(errors="replace").splitlines()
        return "\n".join(lines[-20:]) or "(empty)"


def _kill_with_parent(parent: int) -> Callable[[], None]:
    """Returns a `preexec_fn` that makes the kernel kill the child when its parent dies."""

    def run() -> None:
        if _libc is None:
            return
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # If the parent died before the call above, the kernel will never send that signal.
        if os.getppid() != parent:
            os._exit(1)

    return run
