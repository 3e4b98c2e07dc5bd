"""Runs synchronous store code for coroutines: in a thread or, where possible, without one.

The code of API keys, rate limits and records is synchronous: it calls Redis and continues with the
reply. In a poll, a thread that only waits for Redis costs more than everything else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol, Self, TypeVar, cast

import redis
from anyio import to_thread

from exporter.store.base import ExportStore
from exporter.store.redis import errors, records
from exporter.store.redis.api_keys import KeyRing
from exporter.store.redis.async_connection import AsyncConnection
from exporter.store.redis.keys import DEFAULT, KeyNames
from exporter.store.redis.rate_limits import RateLimits
from exporter.store.redis.store import RedisStore

T = TypeVar("T")
U = TypeVar("U")
Word = str | bytes | int


class AsyncRunner(Protocol):
    """Lets a coroutine run synchronous functions that read or change records in Redis.

    The functions use `keys`, `limits` and `store` of this object. ThreadRunner runs them in a
    thread, ReplayRunner on the event loop.
    """

    @property
    def keys(self) -> KeyRing: ...

    @property
    def limits(self) -> RateLimits: ...

    @property
    def store(self) -> ExportStore: ...

    async def run(self, work: Callable[[AsyncRunner], T]) -> T:
        """Runs the function `work` and returns its result or raises its exception.

        `work` may be run several times. It must be deterministic: with the same replies it must
        make the same calls. Calls to keys, limits and store must be its only side effects.
        """

    def run_both(self, first: Callable[[], T], second: Callable[[], U]) -> tuple[T, U]:
        """Runs two independent functions and returns both results; to be called by `work` itself.

        If both raise an exception, that of the first is raised. ReplayRunner sends the calls of
        both functions in one round trip.
        """

    def close(self) -> None:
        """Closes the connections."""


class ThreadRunner:
    """Runs the function in a thread; suitable for every store and every Redis."""

    def __init__(self, keys: KeyRing, limits: RateLimits, store: Callable[[], ExportStore]) -> None:
        self.keys = keys
        self.limits = limits
        self._store = store

    @property
    def store(self) -> ExportStore:
        return self._store()

    async def run(self, work: Callable[[AsyncRunner], T]) -> T:
        return await to_thread.run_sync(work, self)

    def run_both(self, first: Callable[[], T], second: Callable[[], U]) -> tuple[T, U]:
        return first(), second()

    def close(self) -> None:
        pass


class ReplayRunner:
    """Runs a synchronous function on the event loop by replay, without a thread.

    At each Redis call without a known reply, the function is stopped, the reply is awaited, and the
    function is run again from its start with all replies so far. It must therefore have no other
    side effects. Each replay costs some microseconds and a waiting thread about a hundred, so the
    function must make few calls and compute little. Replay sends no command twice.
    """

    def __init__(self, channel: AsyncConnection, names: KeyNames = DEFAULT) -> None:
        self._channel = channel
        self._client = _RecordingClient()
        client = cast("redis.Redis", self._client)
        self.keys = KeyRing(client, names)
        self.limits = RateLimits(client, names)
        self.store: ExportStore = RedisStore(client, names)

    async def run(self, work: Callable[[AsyncRunner], T]) -> T:
        answers: list[Any] = []
        while True:
            self._client.begin(answers)
            try:
                return work(self)
            except _NeedsAnswer as first_stop:
                batches = first_stop.batches
            commands = [command for batch in batches for command in batch]
            with errors.translate_errors():
                found = await self._answers(commands)
            for batch in batches:
                answers.append(found[: len(batch)])
                found = found[len(batch) :]

    def run_both(self, first: Callable[[], T], second: Callable[[], U]) -> tuple[T, U]:
        try:
            one = first()
        except _NeedsAnswer as first_stop:
            try:
                second()
            except _NeedsAnswer as second_stop:
                raise _NeedsAnswer([*first_stop.batches, *second_stop.batches]) from None
            raise
        return one, second()

    async def _answers(self, commands: Sequence[Sequence[Word]]) -> list[Any]:
        try:
            return await self._channel.execute(*commands)
        except redis.exceptions.NoScriptError:
            digests = {command[1] for command in commands if command[0] == "EVALSHA"}
            loads = [("SCRIPT", "LOAD", self._client.texts[str(one)]) for one in digests]
            return (await self._channel.execute(*loads, *commands))[len(loads) :]

    def close(self) -> None:
        self._channel.close()


class _NeedsAnswer(BaseException):
    """Stops a function at a Redis call whose reply is not yet known.

    A BaseException, so that `except Exception` in the function does not catch it.
    """

    def __init__(self, batches: Sequence[Sequence[Sequence[Word]]]) -> None:
        self.batches = batches
        """Groups of commands; each group belongs to one call, which gets its replies together."""


class _RecordingClient:
    """The part of redis.Redis that is used; returns known replies or raises _NeedsAnswer."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        """Text of each Lua script by its SHA-1 digest."""
        self._answers: Sequence[Any] = ()
        self._place = 0
        self._piped: list[tuple[Word, ...]] = []

    def begin(self, answers: Sequence[Any]) -> None:
        """Starts a replay, in which the first calls get these replies, in order."""
        self._answers, self._place = answers, 0
        self._piped = []

    def register_script(self, text: str) -> Callable[..., Any]:
        digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        self.texts[digest] = text

        def call(keys: Sequence[Word] = (), args: Sequence[Word] = ()) -> Any:
            return self._answer(("EVALSHA", digest, len(keys), *keys, *args))[0]

        return call

    def hgetall(self, name: str) -> dict[bytes, bytes]:
        return dict(records.pairs(self._answer(("HGETALL", name))[0]))

    def hmget(self, name: str, names: Sequence[str]) -> list[bytes | None]:
        return cast("list[bytes | None]", self._answer(("HMGET", name, *names))[0])

    def pipeline(self, transaction: bool = True) -> Self:
        assert not transaction, "only pipelines without a transaction are supported"
        return self

    def get(self, name: str) -> None:
        self._piped.append(("GET", name))

    def hexists(self, name: str, field: str) -> None:
        self._piped.append(("HEXISTS", name, field))

    def execute(self) -> list[Any]:
        commands, self._piped = self._piped, []
        return self._answer(*commands)

    def _answer(self, *commands: tuple[Word, ...]) -> list[Any]:
        if self._place == len(self._answers):
            raise _NeedsAnswer([commands])
        self._place += 1
        return cast("list[Any]", self._answers[self._place - 1])


def open_runner(keys: KeyRing, limits: RateLimits, store: Callable[[], ExportStore]) -> AsyncRunner:
    """Returns a ReplayRunner if store and keys use the same Redis client and it is supported.

    Otherwise returns a ThreadRunner.
    """
    first = store()
    if isinstance(first, RedisStore) and first.client is keys.client:
        channel = AsyncConnection.for_client(keys.client)
        if channel is not None:
            return ReplayRunner(channel, first.names)
    return ThreadRunner(keys, limits, store)
