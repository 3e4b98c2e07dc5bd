"""API keys: the secret is returned once, at creation; only its hash is stored."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple, cast

import msgspec
import redis
import structlog
from msgspec.structs import replace

from exporter.core import limits as core_limits
from exporter.core import plans
from exporter.core.exports import PRIORITIES
from exporter.core.plans import Plan
from exporter.core.rates import Rate
from exporter.store.redis import calls, credit_accounts, errors
from exporter.store.redis.calls import Call, Command
from exporter.store.redis.keys import DEFAULT, KeyNames

log: structlog.stdlib.BoundLogger = structlog.get_logger()

MAX_KNOWN_KEYS = 1024
"""Keys that a process remembers."""
DEFAULT_SCOPES = ("read", "write")
"""Scopes of a key unless others are given."""
SCOPES = (*DEFAULT_SCOPES, "operator")
"""Scopes of a key: `read` allows polling and listing, `write` creating and canceling.

`operator` extends what the key may read and change to all users, and to the installation.
"""


class ApiKey(msgspec.Struct, frozen=True):
    """The stored record of an API key, without its secret."""

    id: str
    """First 12 hex digits of the SHA-256 of the secret: identifies the key without revealing it."""
    user_id: str
    scopes: tuple[str, ...]
    name: str
    created_at: datetime
    plan: Plan = plans.UNLIMITED
    """The permissions and limits of the key; a key stored without a plan has no limits."""

    @property
    def may_read(self) -> bool:
        """True if the key has the scope `read`, which download links need."""
        return "read" in self.scopes


class KeyChanged(Exception):
    """The API key of a request was changed or revoked since it was read."""


class KnownKey(NamedTuple):
    """An API key as this process has read it last."""

    key: ApiKey
    digest: str
    value: bytes
    """The record of the key."""
    metered: bool


class KeyRing:
    """Stores all API keys of an installation.

    A secret has 256 random bits, so a plain SHA-256 protects it as well as a slow password hash,
    at no cost for a poll. All methods raise StoreUnavailable.
    """

    def __init__(self, client: redis.Redis, names: KeyNames = DEFAULT) -> None:
        self.client = client
        """The Redis client of the keys; their credit accounts and rate limits use it too."""
        self._names = names
        self._index = names("keys")
        self._known: dict[str, KnownKey] = {}

    def create(
        self,
        user: str,
        scopes: Sequence[str] = DEFAULT_SCOPES,
        name: str = "",
        *,
        plan: Plan = plans.UNLIMITED,
        balance: int | None = None,
    ) -> str:
        """Creates a key for a user and returns its secret, which cannot be read again.

        The key may spend `balance` credits; None: unlimited. `plan.key_id` and `plan.metered` are
        ignored, because they are computed from the key and its account when the key is read. Raises
        ValueError for an unknown scope or feature, an empty user, or a number out of range.
        """
        unknown = [scope for scope in scopes if scope not in SCOPES]
        if unknown or not scopes:
            raise ValueError(f"scope {', '.join(unknown) or 'missing'}: give {' or '.join(SCOPES)}")
        if not user.strip():
            raise ValueError("user is empty: give the id of the user that the key belongs to")
        _check(plan)
        secret = "exp_" + secrets.token_urlsafe(32)
        digest = _digest(secret)
        key = ApiKey(_id(digest), user, tuple(scopes), name, datetime.now(UTC), plan)
        with errors.translate_errors():
            pipe = self.client.pipeline(transaction=True)
            pipe.set(self._names("key", digest), msgspec.json.encode(key))
            pipe.hset(self._index, key.id, digest)
            if balance is not None:
                credit_accounts.check(balance)
                pipe.hset(self._names("account", key.id), "left", str(balance))
            pipe.execute()
        return secret

    def find(self, secret: str) -> ApiKey | None:
        """Returns the key with that secret; returns None if it is unknown or revoked."""
        return calls.run(self.client, self.find_call(secret))

    def find_call(self, secret: str) -> Call[ApiKey | None]:
        """Returns the call that `find` makes."""
        digest = _digest(secret)
        return Call(self._commands(digest), lambda replies: self._read(digest, *replies))

    def find_by_id(self, key_id: str) -> ApiKey | None:
        """Returns the key with that id; returns None if it is unknown or revoked."""
        with errors.translate_errors():
            digest = cast("bytes | None", self.client.hget(self._index, key_id))
        if digest is None:
            return None
        found = calls.run(self.client, self._read_call([digest.decode()]))
        return found[0] if found else None

    def known(self, secret: str) -> KnownKey | None:
        """Returns the key with that secret as it was read last, without asking Redis.

        It may have changed: only what Redis does on the condition that the key is still the same
        may rely on it. Returns None if the key is not remembered.
        """
        return self._known.get(_digest(secret))

    def list(self) -> Sequence[ApiKey]:
        """Returns all keys that are not revoked, oldest first."""
        with errors.translate_errors():
            digests = cast("list[bytes]", self.client.hvals(self._index))
        found = calls.run(self.client, self._read_call([one.decode() for one in digests]))
        return sorted(found, key=lambda key: key.created_at)

    def set(
        self,
        key_id: str,
        *,
        features: Iterable[str] | msgspec.UnsetType | None = msgspec.UNSET,
        priority_ceiling: int | None = None,
        concurrency: int | None = None,
        limits: Mapping[str, int | Rate | None] | None = None,
    ) -> bool:
        """Changes the given parts of a key's plan for all later requests; returns True.

        `limits` are added to those of the key; None removes one, so that the setting applies again.
        Returns False if no key has that id. Raises ValueError for an unknown feature or a number
        out of range.
        """
        changes: dict[str, object] = {}
        if features is not msgspec.UNSET:
            changes["features"] = None if features is None else frozenset(features)
        if priority_ceiling is not None:
            changes["priority_ceiling"] = priority_ceiling
        if concurrency is not None:
            changes["concurrency"] = concurrency
        with errors.translate_errors():
            digest = cast("bytes | None", self.client.hget(self._index, key_id))
            if digest is None:
                return False
            name = self._names("key", digest.decode())
            changed = False

            def change(pipe: redis.client.Pipeline) -> None:
                nonlocal changed
                value = cast("bytes | None", pipe.get(name))
                changed = value is not None
                pipe.multi()
                if value is not None:
                    key = msgspec.json.decode(value, type=ApiKey)
                    kept = {**key.plan.limits, **(limits or {})}
                    own = {name: one for name, one in kept.items() if one is not None}
                    plan = replace(key.plan, **changes, limits=own)
                    _check(plan)
                    pipe.set(name, msgspec.json.encode(replace(key, plan=plan)))

            # WATCH protects against a concurrent revoke: the write must not bring the key back.
            self.client.transaction(change, name)
        return changed

    def revoke(self, key_id: str) -> bool:
        """Revokes a key and deletes its account; returns True.

        Returns False if no key has that id. Running exports of the key continue. When they end,
        their reserved credits are neither charged nor given back, because the account no longer
        exists.
        """
        with errors.translate_errors():
            digest = cast("bytes | None", self.client.hget(self._index, key_id))
            if digest is None:
                return False
            pipe = self.client.pipeline(transaction=True)
            pipe.delete(self._names("key", digest.decode()), self._names("account", key_id))
            pipe.hdel(self._index, key_id)
            pipe.execute()
        return True

    def _read_call(self, digests: Sequence[str]) -> Call[Sequence[ApiKey]]:
        """Returns a call for the keys whose secrets have these digests.

        Unknown digests, and keys whose record is damaged, are left out.
        """
        commands = [command for digest in digests for command in self._commands(digest)]

        def read(replies: Sequence[Any]) -> Sequence[ApiKey]:
            pairs = zip(digests, replies[::2], replies[1::2], strict=True)
            found = (self._read(digest, value, metered) for digest, value, metered in pairs)
            return [key for key in found if key is not None]

        return Call(commands, read)

    def _commands(self, digest: str) -> Sequence[Command]:
        account = self._names("account", _id(digest))
        return ("GET", self._names("key", digest)), ("HEXISTS", account, "left")

    def _read(self, digest: str, value: bytes | None, metered: int) -> ApiKey | None:
        if not value:
            return None
        try:
            key = _decoded(value, bool(metered))
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one key
            log.warning("key.unreadable", key_id=_id(digest), reason=repr(error))
            return None
        self._remember(KnownKey(key, digest, value, bool(metered)))
        return key

    def _remember(self, key: KnownKey) -> None:
        if len(self._known) >= MAX_KNOWN_KEYS:
            self._known.clear()
        self._known[key.digest] = key


@lru_cache(maxsize=MAX_KNOWN_KEYS)
def _decoded(value: bytes, metered: bool) -> ApiKey:
    # The cache is keyed by the bytes that Redis has just returned, so an entry is never stale.
    key = msgspec.json.decode(value, type=ApiKey)
    return replace(key, plan=replace(key.plan, key_id=key.id, metered=metered))


def _check(plan: Plan) -> None:
    unknown = sorted((plan.features or frozenset()) - plans.FEATURES.keys())
    if unknown:
        raise ValueError(f"feature {', '.join(unknown)}: give one of {', '.join(plans.FEATURES)}")
    if plan.priority_ceiling not in PRIORITIES:
        raise ValueError(
            f"a priority of at most {plan.priority_ceiling} is out of range: give 0 to 9"
        )
    core_limits.check(plan.limits)
    if plan.concurrency < 0:
        raise ValueError(f"{plan.concurrency} slices at once: give 1 or more, or 0 for no limit")


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _id(digest: str) -> str:
    return digest[:12]
