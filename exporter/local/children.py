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

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class ChildError(ExporterError):
    """A child ended by itself, or did not answer in time; the text holds the end of its log."""


class Child:
    """A server process in a group of its own that ends when we end, even by SIGKILL.

    `answers` tells whether it does its work yet. `patience` is how long it may take to get there
    and `grace` how long it may take to end after SIGTERM, both in seconds. Its output goes to the
    file `log`; the one of the run before is kept beside it as `<log>.1`.

    Linux ends the child when the *thread* that launched it ends: launch from a thread that lives
    as long as the child should. Elsewhere the child survives a SIGKILL of its parent.
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
        patience: float = 180.0,
        grace: float = 10.0,
    ) -> None:
        self.name = name
        self.log = log
        self.command = command
        self._answers = answers
        self._env = env
        self._cwd = cwd
        self._patience = patience
        self._grace = grace
        self._process: subprocess.Popen[bytes] | None = None
        self._deadline = 0.0

    @property
    def pid(self) -> int:
        """The id of the process and of its group. RuntimeError when it is not running."""
        if self._process is None:
            raise RuntimeError(f"{self.name} does not run: call start() first.")
        return self._process.pid

    def launch(self) -> None:
        """Start the process and return at once. RuntimeError when it runs already."""
        if self._process is not None and self._process.poll() is None:
            raise RuntimeError(f"{self.name} runs already, as process {self.pid}.")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists():
            self.log.replace(self.log.with_name(f"{self.log.name}.1"))
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own commands, no shell
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(self._env),
                cwd=self._cwd,
                start_new_session=True,
                preexec_fn=_die_with(os.getpid()),
            )
        self._deadline = time.monotonic() + self._patience

    def ready(self) -> bool:
        """Whether it answers. ChildError when it ended, or when its patience is over."""
        self.check()
        if self._answers():
            return True
        if time.monotonic() > self._deadline:
            raise ChildError(
                f"{self.name} did not answer within {self._patience:g} s. "
                f"The end of {self.log}:\n{self._tail()}"
            )
        return False

    def check(self) -> None:
        """Return when it runs. ChildError with its exit status and the end of its log otherwise."""
        if self._process is None:
            raise RuntimeError(f"{self.name} does not run: call start() first.")
        status = self._process.poll()
        if status is not None:
            how = f"with status {status}" if status >= 0 else f"by {signal.Signals(-status).name}"
            raise ChildError(f"{self.name} ended {how}. The end of {self.log}:\n{self._tail()}")

    def start(self) -> None:
        """Launch it and return when it answers; ChildError and nothing left when it never does."""
        self.launch()
        try:
            while not self.ready():
                time.sleep(0.05)
        except BaseException:
            self.stop()
            raise

    def terminate(self) -> None:
        """Ask the process, not its group, to end; a second call and a dead process change nothing.

        The group is spared because a Celery worker lets its pool finish; a pool process that gets
        the signal itself would drop what it does.
        """
        if self._process is not None:
            self._process.terminate()

    def stop(self) -> None:
        """Return when the process and all of its group have ended: SIGTERM, then SIGKILL."""
        if self._process is None:
            return
        self.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(self._grace)
        self.kill()

    def kill(self) -> None:
        """End the process and its group by SIGKILL, and return when the process is gone."""
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


def _die_with(parent: int) -> Callable[[], None]:
    """What a new child runs between fork and exec, to be killed by the kernel when we die."""

    def run() -> None:
        if _libc is None:
            return
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # The parent may have died before the line above, and nobody would tell us any more.
        if os.getppid() != parent:
            os._exit(1)

    return run
