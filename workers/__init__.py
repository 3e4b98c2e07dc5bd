"""Celery application of the workers: its tasks, the messages that wake workers, and a watchdog."""

from __future__ import annotations
