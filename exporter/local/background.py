"""Runs the local stack in the background, and ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from exporter.errors import ExporterError
from exporter.local import private, running

MAX_STOP_SECONDS = 60.0
"""Time in which a stack must end after SIGTERM; it takes about 25 s at most."""


def start(data_dir: Path, arguments: Sequence[str]) -> int:
    """Starts `exporter` with these arguments in a session of its own; returns the exit code.

    The command must run a stack in `data_dir`. When all its processes answer, the stack's line of
    JSON is written to stdout and 0 is returned. If it ends before, what it said goes to stderr. The
    stack logs to `data_dir`/logs/up.log and outlives this process and its terminal.
    """
    private.make_folder(data_dir)
    logs = data_dir / "logs"
    logs.mkdir(exist_ok=True)
    # Appended to, because a stack that runs there already logs to this file, too.
    with (logs / "up.log").open("ab+") as log:
        begin = log.tell()
        child = subprocess.Popen(  # noqa: S603 - our own command, no shell
            [sys.executable, "-m", "exporter.cli", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
        assert child.stdout is not None
        try:
            line = child.stdout.readline()
            status = 0 if line else child.wait()
        except KeyboardInterrupt:
            child.terminate()
            child.wait()
            raise
        finally:
            child.stdout.close()
        if not line:
            log.seek(begin)
            sys.stderr.write(log.read().decode(errors="replace"))
    sys.stdout.write(line.decode())
    return status


def stop(data_dir: Path) -> None:
    """Ends the stack that runs in `data_dir` and returns when all its processes have ended.

    Raises ExporterError if no stack runs there, or if it does not end in time.
    """
    try:
        lock = (data_dir / "lock").open(encoding="utf-8")
    except FileNotFoundError:
        raise _not_running(data_dir) from None
    with lock:
        if not running.is_locked(lock):
            raise _not_running(data_dir)
        holder = int(lock.read())
        os.kill(holder, signal.SIGTERM)
        deadline = time.monotonic() + MAX_STOP_SECONDS
        while running.is_locked(lock):
            if time.monotonic() > deadline:
                raise ExporterError(
                    f"The stack of process {holder} did not end within {MAX_STOP_SECONDS:g} s; "
                    f"its log: {data_dir / 'logs' / 'up.log'}"
                )
            time.sleep(0.1)


def _not_running(data_dir: Path) -> ExporterError:
    return ExporterError(
        f"No stack runs in {data_dir}: start one with `exporter up`, or name another directory "
        "with --data-dir."
    )
