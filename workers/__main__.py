"""`python -m workers worker|beat`: what the Procfile's worker and beat run."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import structlog

from exporter import logs, settings
from exporter.errors import ConfigurationError, StoreUnavailable
from exporter.store.redis import RedisStore

log = structlog.get_logger()


def main() -> None:
    parser = argparse.ArgumentParser(prog="workers")
    commands = parser.add_subparsers(dest="command", required=True)
    worker = commands.add_parser("worker")
    worker.add_argument("--concurrency", type=int, default=2 * (os.cpu_count() or 1))
    commands.add_parser("beat")
    asked = parser.parse_args()
    logs.configure(asked.command)
    try:
        _check_settings()
    except ConfigurationError as error:
        sys.exit(f"error: {error}")

    # Imported only now: the app reads the settings while it is made.
    from workers.app import app

    if asked.command == "worker":
        from workers import doorbell as doorbell
        from workers import draining as draining  # registers its signal before the pool forks

        app.worker_main(
            [
                "worker",
                f"--concurrency={asked.concurrency}",
                "--without-gossip",
                "--without-mingle",
                "--loglevel=WARNING",
            ]
        )
    else:
        # The schedule is in the code; beat insists on a file for when it last ran.
        with tempfile.TemporaryDirectory(prefix="exporter-beat-") as directory:
            app.start(["beat", f"--schedule={Path(directory) / 'schedule'}", "--loglevel=WARNING"])


def _check_settings() -> None:
    """Raises ConfigurationError for what would let every task fail, or lose exports.

    A Redis that does not answer yet is no reason not to start: Celery waits for it.
    """
    found = settings.load()
    settings.load_config(found.config)
    try:
        for warning in RedisStore.connect(found.redis_url).check():
            log.warning("redis.unchecked", reason=warning)
    except StoreUnavailable as error:
        log.warning("redis.silent", reason=str(error))


if __name__ == "__main__":
    main()
