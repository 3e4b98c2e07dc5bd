"""Structured logs on stderr: one JSON object per line, with a stable action name, no secrets."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import structlog

# Applied to the finished line, so that a nested value or a traceback is searched as well. No
# pattern matches a backslash: removing the first half of an escaped quote would break the JSON.
_SECRETS = (
    (
        "://",
        re.compile(r"https?://[^\s\\\"'<>]*x-amz-signature=[^\s\\\"'<>]*", re.IGNORECASE),
        "(a presigned URL)",
    ),
    (
        "=",
        re.compile(r"x-amz-(signature|credential)=[^\s\\\"'<>&]*", re.IGNORECASE),
        r"x-amz-\1=(hidden)",
    ),
    ("exp_", re.compile(r"exp_[A-Za-z0-9_-]{43}"), "(an API key)"),
    ("whsec_", re.compile(r"whsec_[A-Za-z0-9+/=_-]+"), "(a webhook's secret)"),
    ("://", re.compile(r"://[^\s\\/@\"']*@"), "://(hidden)@"),
)
"""Patterns of presigned URLs, API keys, webhook secrets and passwords, with their replacements.

Before each is a text that every match contains: a line without it is not searched.

A presigned URL is a secret, because it gives access to the file.
"""


def redact(line: str) -> str:
    """Returns the line with all secrets replaced.

    >>> redact("cannot reach redis://:pa55@10.0.0.1/0")
    'cannot reach redis://(hidden)@10.0.0.1/0'
    """
    for part, pattern, instead in _SECRETS:
        if part in line:
            line = pattern.sub(instead, line)
    return line


def _to_json(event: Any, default: Callable[[Any], Any]) -> str:
    return _encoder(default).encode(event)


@cache
def _encoder(default: Callable[[Any], Any]) -> json.JSONEncoder:
    # json.dumps makes an encoder for each call with options.
    return json.JSONEncoder(sort_keys=True, ensure_ascii=False, default=default)


def _redact_line(_logger: object, _method: str, line: str) -> str:
    return redact(line)


class _Formatter(logging.Formatter):
    """Formats the log lines of libraries and replaces the secrets in them."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def configure(process: str) -> None:
    """Sets up logging for this process; every line gets the process name.

    Call once, before anything is logged.
    """
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.format_exc_info,
        structlog.processors.EventRenamer("action"),
        structlog.processors.JSONRenderer(_to_json),
        _redact_line,
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
