"""`python -m workers worker|webhooks|beat`: what the Procfile's lines of these names run."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import structlog

from exporter import config, logs, settings
from exporter.errors import ConfigurationError, StoreUnavailable
from exporter.store.redis.store import RedisStore
from workers.pulse import MOST_SLOTS

log = structlog.get_logger()

SENDERS = 2
"""Processes that send webhooks: when one hands over and still waits for slow receivers, the other
goes on."""
STORE_RETRY = 1.0
"""Seconds between two tries to reach Redis at start-up."""


def main() -> None:
    """Run until SIGTERM. Exits with 78, and how to mend it on stderr, if the operator has to act:
    a supervisor that starts it again changes nothing."""
    parser = argparse.ArgumentParser(prog="workers")
    commands = parser.add_subparsers(dest="command", required=True)
    worker = commands.add_parser("worker")
    worker.add_argument("--concurrency", type=_slots, default=2 * (os.cpu_count() or 1))
    commands.add_parser("webhooks")
    commands.add_parser("beat")
    asked = parser.parse_args()
    logs.configure(asked.command)
    try:
        _check_settings()
    except ConfigurationError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(os.EX_CONFIG)

    # Imported only now: the app reads the settings while it is made.
    from workers.app import app

    if asked.command in ("worker", "webhooks"):
        from celery.signals import worker_process_init

        from workers import doorbell as doorbell
        from workers import draining as draining  # registers its signal before the pool forks
        from workers import tasks
        from workers.routing import QUEUE, WEBHOOKS

        is_worker = asked.command == "worker"
        if is_worker:
            worker_process_init.connect(tasks.warm)
        app.worker_main(
            [
                "worker",
                f"--queues={QUEUE if is_worker else WEBHOOKS}",
                f"--concurrency={asked.concurrency if is_worker else SENDERS}",
                *([] if is_worker else ["--hostname=webhooks@%h"]),
                "--without-gossip",
                "--without-mingle",
                "--loglevel=WARNING",
            ]
        )
    else:
        # The schedule is in the code; beat insists on a file for when it last ran.
        with tempfile.TemporaryDirectory(prefix="exporter-beat-") as directory:
            app.start(["beat", f"--schedule={Path(directory) / 'schedule'}", "--loglevel=WARNING"])


def _slots(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST_SLOTS:
        raise argparse.ArgumentTypeError(
            f"{text}: give 1 to {MOST_SLOTS}; for more slices at once, start more workers"
        )
    return int(text)


def _check_settings() -> None:
    """Raises ConfigurationError for what would let every task fail, or lose exports.

    Waits for a Redis that does not answer yet: what it would do with exports is not known before.
    """
    found = settings.load()
    config.load_config(found.config)
    store = RedisStore.connect(found.redis_url)
    while True:
        try:
            warnings = store.check()
            break
        except StoreUnavailable as error:
            log.warning("redis.silent", reason=str(error))
            time.sleep(STORE_RETRY)
    for warning in warnings:
        log.warning("redis.unchecked", reason=warning)


if __name__ == "__main__":
    main()
