"""`python -m workers worker|beat`: what the Procfile's worker and beat run."""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from exporter import logs
from workers import draining as draining  # registers its signal before the pool forks
from workers.app import app


def main() -> None:
    parser = argparse.ArgumentParser(prog="workers")
    commands = parser.add_subparsers(dest="command", required=True)
    worker = commands.add_parser("worker")
    worker.add_argument("--concurrency", type=int, default=2 * (os.cpu_count() or 1))
    commands.add_parser("beat")
    asked = parser.parse_args()
    logs.configure(asked.command)
    if asked.command == "worker":
        from workers import doorbell as doorbell

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


if __name__ == "__main__":
    main()
