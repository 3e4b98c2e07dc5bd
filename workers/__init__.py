"""Celery application of the workers: tasks, doorbells, watchdog, and the entry point."""

from __future__ import annotations
