"""`python -m workers worker SLOTS|webhooks|beat`: the processes behind the `exporter` commands.

`exporter worker`, `webhooks` and `beat` replace themselves by these; options and their help are
there. Nothing else starts them.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import structlog

from exporter import config, logs, settings
from exporter.errors import ConfigurationError, StoreUnavailable
from exporter.store.redis.store import RedisStore

log = structlog.get_logger()

SENDER_PROCESSES = 2
"""Processes that send webhooks: while one hands over and still waits for slow receivers, the other
sends."""
STORE_RETRY_SECONDS = 1.0
"""Pause between two tries to reach Redis at start-up."""


def main() -> None:
    """Run until SIGTERM. Exits with 78, and how to mend it on stderr, if the operator has to act:
    a supervisor that starts it again changes nothing."""
    role, *options = sys.argv[1:]
    logs.configure(role)
    try:
        _check_settings()
    except ConfigurationError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(os.EX_CONFIG)
    if role == "beat":
        _schedule()
    else:
        _consume(int(options[0]) if role == "worker" else None)


def _consume(slots: int | None) -> None:
    """Run a Celery worker: of exports with this many processes, or of webhooks for None."""
    # Imported only now: the app reads the settings while it is made.
    from celery.signals import worker_process_init

    from workers import doorbell as doorbell
    from workers import draining as draining  # registers its signal before the pool forks
    from workers import tasks
    from workers.app import app
    from workers.routing import QUEUE, WEBHOOKS

    if slots is not None:
        worker_process_init.connect(tasks.warm)
    app.worker_main(
        [
            "worker",
            f"--queues={WEBHOOKS if slots is None else QUEUE}",
            f"--concurrency={SENDER_PROCESSES if slots is None else slots}",
            *(["--hostname=webhooks@%h"] if slots is None else []),
            "--without-gossip",
            "--without-mingle",
            "--loglevel=WARNING",
        ]
    )


def _schedule() -> None:
    """Run Celery beat."""
    from workers.app import app

    # The schedule is in the code; beat insists on a file for when it last ran.
    with tempfile.TemporaryDirectory(prefix="exporter-beat-") as directory:
        app.start(["beat", f"--schedule={Path(directory) / 'schedule'}", "--loglevel=WARNING"])


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
            time.sleep(STORE_RETRY_SECONDS)
    for warning in warnings:
        log.warning("redis.unchecked", reason=warning)


if __name__ == "__main__":
    main()
