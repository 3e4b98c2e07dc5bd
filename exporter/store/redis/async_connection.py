"""One connection to Redis that all coroutines of an event loop share."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple, Self, cast

import hiredis
import redis

_PAUSE = 0.1
"""Seconds before the second try."""
_INCOMPLETE = object()
"""The rest of an answer has not come yet."""


class Address(NamedTuple):
    """A Redis and how long it may take."""

    host: str
    port: int
    database: int
    username: str | None
    password: str | None
    connect_timeout: float
    timeout: float


class AsyncConnection:
    """Gives each coroutine the answers to its own commands, whatever others ask meanwhile.

    Nobody waits for a connection to become free: what is asked within one turn of the loop leaves
    in one piece, and the answers come back in one. That, and no thread, is what makes it several
    times cheaper than a pool. A Redis that is silent is given up after two tries, and everybody who
    waits with it, so only commands that may take effect twice belong here, and none that blocks.
    """

    def __init__(self, where: Address) -> None:
        """Does not connect yet, and needs no running loop before `ask` does."""
        self._where = where
        self._open: _Connection | None = None
        self._opening: asyncio.Task[_Connection] | None = None

    @classmethod
    def beside(cls, client: redis.Redis) -> Self | None:
        """A channel to the Redis that a client speaks to, as patient as the client is; None if that
        is reached otherwise than by TCP and a fixed password, which is not known here."""
        pool = client.connection_pool
        known = pool.connection_kwargs
        if pool.connection_class is not redis.Connection or known.get("credential_provider"):
            return None
        return cls(
            Address(
                known.get("host", "localhost"),
                int(known.get("port", 6379)),
                int(known.get("db") or 0),
                known.get("username"),
                known.get("password"),
                known.get("socket_connect_timeout") or 3.0,
                known.get("socket_timeout") or 3.0,
            )
        )

    async def ask(self, *commands: Sequence[str | bytes | int]) -> list[Any]:
        """The answers to some commands, in their order; bytes, int, None or a list of these.

        Raises what redis-py raises: ResponseError for a command that Redis refused, and
        ConnectionError or TimeoutError after two tries.
        """
        text = b"".join(map(_packed, commands))
        try:
            return await self._asked(text, len(commands))
        except (redis.ConnectionError, redis.TimeoutError):
            await asyncio.sleep(_PAUSE)
            return await self._asked(text, len(commands))

    async def _asked(self, text: bytes, count: int) -> list[Any]:
        connection = self._open
        if connection is None or connection.closed:
            connection = await self._connected()
        answers = await connection.ask(text, count)
        for answer in answers:
            if isinstance(answer, redis.RedisError):
                raise answer
        return answers

    async def _connected(self) -> _Connection:
        # One attempt for all who wait: each on its own would wait for those before it.
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._connect())
        return await asyncio.shield(self._opening)

    async def _connect(self) -> _Connection:
        where = self._where
        loop = asyncio.get_running_loop()
        greetings: list[Sequence[str | bytes | int]] = []
        if where.password is not None:
            name = [where.username] if where.username else []
            greetings.append(["AUTH", *name, where.password])
        if where.database:
            greetings.append(["SELECT", where.database])
        try:
            async with asyncio.timeout(where.connect_timeout):
                _, connection = await loop.create_connection(
                    lambda: _Connection(where.timeout), where.host, where.port
                )
                answers = await connection.ask(b"".join(map(_packed, greetings)), len(greetings))
        except TimeoutError:
            raise redis.TimeoutError(
                f"no connection to {where.host}:{where.port} within {where.connect_timeout:g} s"
            ) from None
        except OSError as error:
            raise redis.ConnectionError(f"{where.host}:{where.port}: {error}") from None
        for answer in answers:
            if isinstance(answer, redis.RedisError):
                connection.close()
                raise answer
        self._open = connection
        return connection

    def close(self) -> None:
        """Let the connection go; whoever asks again gets a new one."""
        if self._open is not None:
            self._open.close()
            self._open = None


class _Connection(asyncio.Protocol):
    """Pairs answers with those who asked, in order: Redis never answers out of it.

    One clock watches the oldest question: one for each would cost as much as asking.
    """

    def __init__(self, timeout: float) -> None:
        self.closed = False
        self._timeout = timeout
        self._watch: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._asked: deque[tuple[asyncio.Future[list[Any]], int, float]] = deque()
        self._leaving: list[bytes] = []
        self._reader = hiredis.Reader(notEnoughData=_INCOMPLETE, replyError=_error)
        self._answers: list[Any] = []

    def ask(self, text: bytes, count: int) -> asyncio.Future[list[Any]]:
        """The answers to come to `count` commands, which leave at the end of this turn."""
        future = self._loop.create_future()
        if self.closed:
            future.set_exception(redis.ConnectionError("the connection was closed"))
        elif not count:
            future.set_result([])
        else:
            if not self._leaving:
                self._loop.call_soon(self._flush)
            self._leaving.append(text)
            self._asked.append((future, count, self._loop.time() + self._timeout))
            if self._watch is None:
                self._watch = self._loop.call_later(self._timeout, self._look)
        return future

    def _look(self) -> None:
        self._watch = None
        if self._asked:
            due = self._asked[0][2]
            if due <= self._loop.time():
                # Closed, because what comes later would be taken for the answer to another.
                self._fail(redis.TimeoutError(f"no answer within {self._timeout:g} s"))
                self.close()
            else:
                self._watch = self._loop.call_at(due, self._look)

    def _flush(self) -> None:
        text = b"".join(self._leaving)
        self._leaving.clear()
        if self._transport is not None and not self.closed:
            self._transport.write(text)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not checked: those of other loops are none of the class.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while (answer := self._reader.gets()) is not _INCOMPLETE:
                self._answers.append(answer)
                future, count, _ = self._asked[0]
                if len(self._answers) == count:
                    self._asked.popleft()
                    if not future.done():  # who asked may have left
                        future.set_result(self._answers)
                    self._answers = []
        except (hiredis.ProtocolError, IndexError):
            self.close()  # no answer of a Redis, or one that nobody asked for

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._fail(redis.ConnectionError(f"the connection was lost ({exc or 'closed'})"))

    def close(self) -> None:
        """Give up what is under way."""
        self.closed = True
        if self._transport is not None:
            self._transport.abort()
        self._fail(redis.ConnectionError("the connection was closed"))

    def _fail(self, error: redis.RedisError) -> None:
        if self._watch is not None:
            self._watch.cancel()
        for future, _, _ in self._asked:
            if not future.done():
                future.set_exception(error)
        self._asked.clear()


def _packed(command: Sequence[str | bytes | int]) -> bytes:
    pieces = [b"*%d\r\n" % len(command)]
    for word in command:
        if not isinstance(word, bytes):
            word = str(word).encode()
        pieces.append(b"$%d\r\n%b\r\n" % (len(word), word))
    return b"".join(pieces)


def _error(text: str) -> redis.RedisError:
    word = text.partition(" ")[0]
    if word == "NOSCRIPT":
        return redis.exceptions.NoScriptError(text)
    if word == "LOADING":
        return redis.BusyLoadingError(text)  # a ConnectionError: worth a second try
    return redis.ResponseError(text)
