"""API keys: shown once, stored hashed."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import cast

import msgspec
import redis
from redis.exceptions import RedisError

from exporter.errors import StoreUnavailable

SCOPES = ("read", "write")
"""read: poll and list. write: create and cancel."""

_PREFIX = "exporter:key:"
_INDEX = "exporter:keys"


class ApiKey(msgspec.Struct, frozen=True):
    """What is known of a key; the key itself is not."""

    id: str
    """First 12 hex digits of the key's SHA-256: names the key without giving it away."""
    user_id: str
    scopes: tuple[str, ...]
    name: str
    created_at: datetime


class KeyRing:
    """All API keys of an installation.

    A key carries 256 random bits, so one plain SHA-256 hides it as well as a slow hash would
    and costs a poll nothing.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def create(self, user: str, scopes: Sequence[str] = SCOPES, name: str = "") -> str:
        """A new key for a user; this return value is the only time that it can be seen.

        Raises ValueError for an unknown scope or an empty user.
        """
        unknown = [scope for scope in scopes if scope not in SCOPES]
        if unknown or not scopes:
            raise ValueError(f"scope {', '.join(unknown) or 'missing'}: give {' or '.join(SCOPES)}")
        if not user.strip():
            raise ValueError("user is empty: give the id of the user whom the key stands for")
        secret = "exp_" + secrets.token_urlsafe(32)
        digest = _digest(secret)
        key = ApiKey(digest[:12], user, tuple(scopes), name, datetime.now(UTC))
        with _answering():
            pipe = self._redis.pipeline(transaction=True)
            pipe.set(_PREFIX + digest, msgspec.json.encode(key))
            pipe.hset(_INDEX, key.id, digest)
            pipe.execute()
        return secret

    def find(self, secret: str) -> ApiKey | None:
        """The key behind a secret, or None if it never was one or is revoked."""
        with _answering():
            value = cast("bytes | None", self._redis.get(_PREFIX + _digest(secret)))
        return msgspec.json.decode(value, type=ApiKey) if value else None

    def list(self) -> Sequence[ApiKey]:
        """All keys that are not revoked, oldest first."""
        with _answering():
            digests = cast("list[bytes]", self._redis.hvals(_INDEX))
            values = self._redis.mget([_PREFIX + d.decode() for d in digests]) if digests else []
        found = (
            msgspec.json.decode(value, type=ApiKey)
            for value in cast("list[bytes | None]", values)
            if value
        )
        return sorted(found, key=lambda key: key.created_at)

    def revoke(self, key_id: str) -> bool:
        """Make a key useless from now on; False if no key has that id."""
        with _answering():
            digest = cast("bytes | None", self._redis.hget(_INDEX, key_id))
            if digest is None:
                return False
            pipe = self._redis.pipeline(transaction=True)
            pipe.delete(_PREFIX + digest.decode())
            pipe.hdel(_INDEX, key_id)
            pipe.execute()
        return True


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except RedisError as error:
        raise StoreUnavailable(f"Redis did not answer: {error}") from error
