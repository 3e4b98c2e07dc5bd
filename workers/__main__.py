"""Entry point of the worker processes: `python -m workers worker SLOTS|webhooks|beat`.

The commands `exporter worker`, `exporter webhooks` and `exporter beat` replace their own process by
one of these processes, and define the options. Nothing else starts them.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from exporter import config, logs, settings, wiring
from exporter.errors import ConfigurationError, StoreUnavailable
from exporter.native import library
from exporter.store.redis import durability, keys
from exporter.store.redis.keys import KeyNames

log = structlog.get_logger()

SENDER_PROCESSES = 2
"""Child processes of a webhook worker.

Two are needed: while one process waits for slow receivers at the end of its task, the other one
sends.
"""
_NO_CHANNELS = (
    "The Redis user may use no channels, so a busy worker that misses a restart of Redis is ended "
    "by its watchdog: grant what deploy/redis.conf shows for them."
)
_DEFAULT_BROKER = "EXPORTER_BROKER_URL (unset, so the next database of EXPORTER_REDIS_URL)"
STORE_RETRY_SECONDS = 1.0
"""Seconds between two attempts to reach Redis at start-up."""


def main() -> None:
    """Runs the process that the command line names, until SIGTERM.

    Exits with status 78 if the configuration is wrong, with the remedy on stderr: the operator must
    act, and a restart by the supervisor does not help.
    """
    role, *options = sys.argv[1:]
    logs.configure(role)
    try:
        _check_settings(role)
    except ConfigurationError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(os.EX_CONFIG)
    if role == "beat":
        _schedule()
    else:
        _consume(int(options[0]) if role == "worker" else None)


def _consume(slots: int | None) -> None:
    """Runs a Celery worker that writes exports in `slots` child processes.

    With `slots` None, runs a Celery worker that sends webhooks, in SENDER_PROCESSES child
    processes.
    """
    # Imported only now, because `workers.app` reads the settings at import.
    from celery.signals import worker_process_init

    from workers import doorbell as doorbell
    from workers import draining as draining  # registers its signal handler before the fork
    from workers import tasks
    from workers.routing import QUEUE, WEBHOOK_QUEUE

    if slots is not None:
        worker_process_init.connect(tasks.warm)
        _report_library()
    _choose_remote_control()
    _run_until_stopped(
        [
            "worker",
            f"--queues={WEBHOOK_QUEUE if slots is None else QUEUE}",
            f"--concurrency={SENDER_PROCESSES if slots is None else slots}",
            *(["--hostname=webhooks@%h"] if slots is None else []),
            "--without-gossip",
            "--without-mingle",
            "--without-heartbeat",
            "--loglevel=WARNING",
        ]
    )


def _report_library() -> None:
    """Logs whether the compiled library is used, which is loaded once for all child processes."""
    native, reason = library.find()
    if native is None:
        log.warning("library.unused", reason=reason)
    else:
        log.info("library.used")


def _choose_remote_control() -> None:
    """Turns Celery's remote control off if the Redis user may not use its channel.

    Nothing sends it commands. But its subscription is how a busy worker notices that Redis was
    restarted: without it, a message that could not be acknowledged counts against the prefetch
    limit, and the worker waits for no other until the watchdog ends it with status 70.
    """
    from workers.app import app

    found = settings.load()

    def check() -> Sequence[str]:
        allowed = durability.allows_channels(found.broker, KeyNames(found.redis_prefix))
        app.conf.worker_enable_remote_control = allowed
        return [] if allowed else [_NO_CHANNELS]

    _await(check)


def _run_until_stopped(arguments: list[str]) -> None:
    """Runs the Celery worker. Exits with status 70 if it ended although no signal asked for that.

    Celery logs an error that it cannot handle, and then returns as it does after SIGTERM.
    """
    from workers import draining
    from workers.app import app

    run: Callable[[list[str]], object] = app.worker_main  # its type says that it never returns
    run(arguments)
    if not draining.requested():
        log.critical("worker.ended_unasked")
        sys.exit(os.EX_SOFTWARE)


def _schedule() -> None:
    """Runs Celery beat, which starts the hourly cleanup."""
    from workers.app import app
    from workers.presence import Presence

    found = settings.load()
    Presence(wiring.store(found), keys.BEATS).keep_shown()
    # The schedule is in the code, but beat requires a file for the times of its last runs.
    with tempfile.TemporaryDirectory(prefix="exporter-beat-") as directory:
        app.start(["beat", f"--schedule={Path(directory) / 'schedule'}", "--loglevel=WARNING"])


def _check_settings(role: str) -> None:
    """Raises ConfigurationError if, with the settings, all tasks would fail or exports be lost.

    Waits until Redis answers, because its durability settings cannot be checked earlier.
    """
    found = settings.load()
    for text in settings.warnings():
        log.warning("settings.warning", reason=text)
    config.check_proxies(config.load_config(found.config), found.s3_endpoint_url)
    if role != "beat":
        wiring.storage(found).open()
    store = wiring.store(found)
    variable = "EXPORTER_BROKER_URL" if found.broker_url else _DEFAULT_BROKER
    _await(store.check)
    _await(lambda: durability.check_broker(found.broker, store.names, variable))


def _await(check: Callable[[], Sequence[str]]) -> None:
    """Repeats a check until Redis answers, and logs its warnings."""
    while True:
        try:
            warnings = check()
            break
        except StoreUnavailable as error:
            log.warning("redis.silent", reason=str(error))
            time.sleep(STORE_RETRY_SECONDS)
    for warning in warnings:
        log.warning("redis.unchecked", reason=warning)


if __name__ == "__main__":
    main()
