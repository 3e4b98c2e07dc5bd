"""Translates Redis errors into StoreUnavailable, with advice to the operator."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterCrossSlotError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
)

from exporter.errors import StoreFull, StoreUnavailable

_CODES = {
    AuthenticationError: "NOAUTH ",
    BusyLoadingError: "LOADING ",
    NoPermissionError: "NOPERM ",
    OutOfMemoryError: "OOM ",
    ReadOnlyError: "READONLY ",
    AskError: "ASK ",
    ClusterCrossSlotError: "CROSSSLOT ",
    ClusterDownError: "CLUSTERDOWN ",
    MasterDownError: "MASTERDOWN ",
    MovedError: "MOVED ",
}
"""Codes that redis-py removes from the text of an error and replaces by a class."""
_WRONG_PASSWORD = "Redis rejected the user or password in EXPORTER_REDIS_URL: correct it there"  # noqa: S105
FULL_HINT = "Redis is full: raise maxmemory or wait until exports end"
_HINTS = {
    "Hostname mismatch": "the certificate of Redis is for another host: write its host name in "
    "EXPORTER_REDIS_URL, or add ssl_check_hostname=false to it",
    "IP address mismatch": "the certificate of Redis is for another host: write its host name in "
    "EXPORTER_REDIS_URL, or add ssl_check_hostname=false to it",
    "CERTIFICATE_VERIFY_FAILED": "the certificate of Redis is not trusted: add "
    "ssl_ca_certs=/PATH/CA.pem to EXPORTER_REDIS_URL",
    "MISCONF": "Redis cannot write its files: free disk space",
    "READONLY": "this Redis is a replica: point EXPORTER_REDIS_URL at the primary",
    "LOADING": "Redis has just started and is still loading its data: retry in a few seconds",
    "WRONGPASS": _WRONG_PASSWORD,
    "invalid username-password": _WRONG_PASSWORD,
    "NOAUTH": "Redis requires a password: add it to EXPORTER_REDIS_URL",
    "NOPERM": "the Redis user may not run a command that the service needs: extend its ACL",
    "WRONGTYPE": "another program writes into this database of Redis: give the service a database"
    " of its own in EXPORTER_REDIS_URL",
    "max number of clients reached": "Redis has all the connections that it allows: raise"
    " maxclients",
    "BUSY ": "a script of another program runs in Redis: wait until it ends",
}
_COMMAND = re.compile(r"Command # \d+ \(.*\) of pipeline caused error: ", re.DOTALL)
"""Prefix that redis-py adds to the text of an error: the command, with hashes of keys."""
_SCRIPT = re.compile(
    r"[ ,]*(script: |on @user_script|@user_script|Error running script).*", re.DOTALL
)
"""Suffix by which Redis names the script in which an error occurred."""
MAX_TEXT_CHARS = 200


def with_code(error: RedisError) -> str:
    """Returns the text of an error with its code."""
    return _CODES.get(type(error), "") + str(error)


@contextmanager
def translate_errors() -> Iterator[None]:
    """Raises StoreUnavailable in place of each Redis error that the block raises."""
    try:
        yield
    except RedisError as error:
        raise translated(error) from error


def translated(error: RedisError) -> StoreUnavailable:
    """Returns the error to raise in place of a Redis error."""
    whole = with_code(error)
    if "OOM " in whole:
        return StoreFull(FULL_HINT)
    hint = next((hint for word, hint in _HINTS.items() if word in whole), None)
    return StoreUnavailable(hint or f"Redis did not answer: {_plain(whole)}")


def _plain(text: str) -> str:
    """Returns the text of an error without the command and the script that it quotes."""
    return _SCRIPT.sub("", _COMMAND.sub("", text))[:MAX_TEXT_CHARS]
