"""Structured logs: one JSON object a line on stderr, with a stable action name."""

from __future__ import annotations

import logging
import re
import sys
from typing import Any

import structlog

# Applied to the finished line, so that nothing hides in a nested value or a traceback. No pattern
# takes a backslash: it would be the first half of an escaped quote, and the line no JSON any more.
_SECRETS = (
    (
        re.compile(r"https?://[^\s\\\"'<>]*x-amz-signature=[^\s\\\"'<>]*", re.IGNORECASE),
        "(a presigned URL)",
    ),
    (
        re.compile(r"x-amz-(signature|credential)=[^\s\\\"'<>&]*", re.IGNORECASE),
        r"x-amz-\1=(hidden)",
    ),
    (re.compile(r"exp_[A-Za-z0-9_-]{43}"), "(an API key)"),
    (re.compile(r"whsec_[A-Za-z0-9+/=_-]+"), "(a webhook's secret)"),
    (re.compile(r"://[^\s\\/@\"']*@"), "://(hidden)@"),
)
"""A presigned URL is a key to a file, ours and an address with a password are keys too."""


def hidden(line: str) -> str:
    """The line without what would let its reader in anywhere.

    >>> hidden("cannot reach redis://:pa55@10.0.0.1/0")
    'cannot reach redis://(hidden)@10.0.0.1/0'
    """
    for pattern, instead in _SECRETS:
        line = pattern.sub(instead, line)
    return line


def _hide(_logger: object, _method: str, line: str) -> str:
    return hidden(line)


class _Formatter(logging.Formatter):
    """What libraries log passes the same door."""

    def format(self, record: logging.LogRecord) -> str:
        return hidden(super().format(record))


def configure(process: str) -> None:
    """Set up logging for this process, named in each line. Call once, first thing."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.format_exc_info,
        structlog.processors.EventRenamer("action"),
        structlog.processors.JSONRenderer(sort_keys=True, ensure_ascii=False),
        _hide,
    ]
    structlog.configure(
        processors=shared,
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.bind_contextvars(process=process)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
