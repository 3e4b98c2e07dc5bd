"""Translates Redis errors into StoreUnavailable, with advice to the operator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from redis.exceptions import RedisError

from exporter.errors import StoreUnavailable

_HINTS = {
    "OOM ": "Redis is full: raise maxmemory or wait until exports end",
    "MISCONF": "Redis cannot write its files: free disk space",
    "READONLY": "this Redis is a replica: point EXPORTER_REDIS_URL at the primary",
    "LOADING": "Redis has just started and is still loading its data: retry in a few seconds",
    "NOAUTH": "Redis requires a password: add it to EXPORTER_REDIS_URL",
    "WRONGPASS": "Redis rejected the user or password in EXPORTER_REDIS_URL: correct it there",
    "NOPERM": "the Redis user may not run a command that the service needs: extend its ACL",
}


@contextmanager
def translate_errors() -> Iterator[None]:
    """Raises StoreUnavailable in place of each Redis error that the block raises."""
    try:
        yield
    except RedisError as error:
        text = str(error)
        hint = next((hint for word, hint in _HINTS.items() if word in text), None)
        raise StoreUnavailable(
            f"Redis did not answer: {text}" if hint is None else f"{hint} ({text})"
        ) from error
