"""What a request asks of Redis, done by a thread or, where that is possible, by none.

The code of keys, limits and records is written for threads: it asks Redis and goes on with the
answer. A thread that only waits costs a poll more than all that the poll is about.
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
from exporter.store.redis.rate_limits import RateLimits
from exporter.store.redis.store import RedisStore

T = TypeVar("T")
U = TypeVar("U")
Word = str | bytes | int


class AsyncRunner(Protocol):
    """Does some work with these three for a coroutine, and holds nobody up meanwhile."""

    @property
    def keys(self) -> KeyRing: ...

    @property
    def limits(self) -> RateLimits: ...

    @property
    def store(self) -> ExportStore: ...

    async def run(self, work: Callable[[AsyncRunner], T]) -> T:
        """What the work returns or raises. It must do the same each time that it is called with
        the same answers, and change nothing but by what it asks of the three."""

    def both(self, first: Callable[[], T], second: Callable[[], U]) -> tuple[T, U]:
        """What two pieces of work return, of which the second needs nothing of the first. What
        the first raises comes before what the second does."""

    def close(self) -> None:
        """Let connections go."""


class ThreadRunner:
    """Lets a thread do the work: right for any store and any Redis."""

    def __init__(self, keys: KeyRing, limits: RateLimits, store: Callable[[], ExportStore]) -> None:
        self.keys = keys
        self.limits = limits
        self._store = store

    @property
    def store(self) -> ExportStore:
        return self._store()

    async def run(self, work: Callable[[AsyncRunner], T]) -> T:
        return await to_thread.run_sync(work, self)

    def both(self, first: Callable[[], T], second: Callable[[], U]) -> tuple[T, U]:
        return first(), second()

    def close(self) -> None:
        pass


class ReplayRunner:
    """Does the work up to where it asks Redis for something, waits for the answer without holding
    anybody up, and does it again with that answer, until it is through.

    Each repetition costs some microseconds, a thread that waits a hundred. So the work is to ask
    for little and compute little. Nothing is sent twice.
    """

    def __init__(self, channel: AsyncConnection) -> None:
        self._channel = channel
        self._stand_in = _RecordingClient()
        client = cast("redis.Redis", self._stand_in)
        self.keys = KeyRing(client)
        self.limits = RateLimits(client)
        self.store: ExportStore = RedisStore(client)

    async def run(self, work: Callable[[AsyncRunner], T]) -> T:
        answers: list[Any] = []
        while True:
            self._stand_in.begin(answers)
            try:
                return work(self)
            except _NeedsAnswer as asked:
                questions = asked.questions
            commands = [command for question in questions for command in question]
            with errors.translate_errors():
                found = await self._answers(commands)
            for question in questions:
                answers.append(found[: len(question)])
                found = found[len(question) :]

    def both(self, first: Callable[[], T], second: Callable[[], U]) -> tuple[T, U]:
        try:
            one = first()
        except _NeedsAnswer as asked:
            try:
                second()
            except _NeedsAnswer as also:
                raise _NeedsAnswer([*asked.questions, *also.questions]) from None
            raise
        return one, second()

    async def _answers(self, commands: Sequence[Sequence[Word]]) -> list[Any]:
        try:
            return await self._channel.ask(*commands)
        except redis.exceptions.NoScriptError:
            digests = {command[1] for command in commands if command[0] == "EVALSHA"}
            loads = [("SCRIPT", "LOAD", self._stand_in.texts[str(one)]) for one in digests]
            return (await self._channel.ask(*loads, *commands))[len(loads) :]

    def close(self) -> None:
        self._channel.close()


class _NeedsAnswer(BaseException):
    """The work wants answers that have not come yet. Not for the work to catch."""

    def __init__(self, questions: Sequence[Sequence[Sequence[Word]]]) -> None:
        self.questions = questions
        """Each some commands that are answered together."""


class _RecordingClient:
    """As much of redis.Redis as the work asks for: it knows the answers so far, and no more."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        """Scripts by their SHA-1."""
        self._answers: Sequence[Any] = ()
        self._place = 0
        self._piped: list[tuple[Word, ...]] = []

    def begin(self, answers: Sequence[Any]) -> None:
        """Start again, with these answers to what is asked first."""
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

    def pipeline(self, transaction: bool = True) -> Self:
        assert not transaction, "what is asked here is sent as it is asked"
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
    """The cheaper of the two where it is right: over one Redis that a channel can reach."""
    first = store()
    if isinstance(first, RedisStore) and first.client is keys.client:
        channel = AsyncConnection.beside(keys.client)
        if channel is not None:
            return ReplayRunner(channel)
    return ThreadRunner(keys, limits, store)
