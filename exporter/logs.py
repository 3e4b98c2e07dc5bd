"""Structured logs: one JSON object a line on stderr, with a stable action name."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any

import structlog

_SECRET = ("x-amz-signature=", "x-amz-credential=")


def _no_links(_logger: object, _method: str, event: Mapping[str, Any]) -> Mapping[str, Any]:
    """A presigned URL is a key to a file: whatever carries one is not written."""
    return {key: "(a presigned URL)" if _is_link(value) else value for key, value in event.items()}


def _is_link(value: object) -> bool:
    return isinstance(value, str) and any(mark in value.lower() for mark in _SECRET)


def configure(process: str) -> None:
    """Set up logging for this process, named in each line. Call once, first thing."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.format_exc_info,
        _no_links,
        structlog.processors.EventRenamer("action"),
        structlog.processors.JSONRenderer(sort_keys=True, ensure_ascii=False),
    ]
    structlog.configure(
        processors=shared,
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.bind_contextvars(process=process)
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s"
    )
