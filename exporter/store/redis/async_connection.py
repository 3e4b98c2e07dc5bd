"""A connection to Redis that all coroutines of an event loop share, by pipelining."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, cast

import hiredis
import redis
from redis import asyncio as redis_asyncio

from exporter.store.redis import errors
from exporter.store.redis.calls import Call, Command

T = TypeVar("T")

_RETRY_DELAY_SECONDS = 0.1
"""Pause before the second attempt at a command."""
_INCOMPLETE = object()
"""Marker that the parser returns as long as a reply has not arrived completely."""
_DEFAULT_TIMEOUT_SECONDS = 3.0
"""Used if the client has no timeout."""
_pack = cast("Callable[[Command], bytes]", hiredis.pack_command)  # its stubs allow one word only


class AsyncConnection:
    """Sends the commands of all coroutines over one connection, and returns each its replies.

    No coroutine waits for a free connection: all commands of one iteration of the event loop are
    sent in one write. That, and the absence of threads, makes this several times cheaper than a
    connection pool. If Redis does not reply, all waiting calls fail together, and each call is
    attempted once more. Therefore only commands that may take effect twice are allowed, and no
    blocking commands.
    """

    def __init__(self, client: redis.Redis) -> None:
        """Prepares connections to the client's server, with its password, TLS and timeouts.

        Opens no connection and needs no running event loop: `execute` connects when needed.
        """
        pool = client.connection_pool
        self._known = known = pool.connection_kwargs
        self._timeout: float = known.get("socket_timeout") or _DEFAULT_TIMEOUT_SECONDS
        self._tls = None
        if issubclass(pool.connection_class, redis.SSLConnection):
            options = {name: known[name] for name in known if name.startswith("ssl_")}
            self._tls = redis_asyncio.SSLConnection(**options).ssl_context
        self._connection: _Connection | None = None
        self._opening: asyncio.Task[_Connection] | None = None

    async def run(self, call: Call[T]) -> T:
        """Sends the call and returns its result; other coroutines run until the replies arrive.

        Raises StoreUnavailable, and what the call's `read` raises.
        """
        try:
            try:
                replies = await self.execute(*call.commands)
            except redis.exceptions.NoScriptError:
                call = call.with_loading()
                replies = await self.execute(*call.commands)
        except redis.RedisError as error:
            raise errors.translated(error) from error
        return call.read(replies)

    async def execute(self, *commands: Command) -> list[Any]:
        """Runs commands and returns their replies in order: bytes, int, None or a list of these.

        Raises the exceptions of redis-py: ResponseError for a command that Redis rejected, and
        ConnectionError or TimeoutError after two attempts.
        """
        if not commands:
            return []
        text = b"".join(map(_pack, commands))
        try:
            return await self._execute_once(text, len(commands))
        except (redis.ConnectionError, redis.TimeoutError):
            await asyncio.sleep(_RETRY_DELAY_SECONDS)
            return await self._execute_once(text, len(commands))

    async def _execute_once(self, text: bytes, count: int) -> list[Any]:
        connection = self._connection
        if connection is None or connection.closed:
            connection = await self._get_connection()
        answers = await connection.execute(text, count)
        for answer in answers:
            if isinstance(answer, redis.RedisError):
                raise answer
        return answers

    async def _get_connection(self) -> _Connection:
        # All waiting coroutines share one attempt: separate attempts would queue behind each other.
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._connect())
        return await asyncio.shield(self._opening)

    async def _connect(self) -> _Connection:
        known = self._known
        host, port = known.get("host", "localhost"), int(known.get("port", 6379))
        greetings: list[Command] = []
        if known.get("password") is not None:
            name = [known["username"]] if known.get("username") else []
            greetings.append(("AUTH", *name, known["password"]))
        if known.get("db"):
            greetings.append(("SELECT", known["db"]))
        seconds = known.get("socket_connect_timeout") or _DEFAULT_TIMEOUT_SECONDS
        try:
            async with asyncio.timeout(seconds):
                _, connection = await asyncio.get_running_loop().create_connection(
                    partial(_Connection, self._timeout),
                    host,
                    port,
                    ssl=self._tls.get() if self._tls else None,
                )
                text = b"".join(map(_pack, greetings))
                answers = await connection.execute(text, len(greetings))
        except TimeoutError:
            reason = f"no connection to {host}:{port} within {seconds:g} s"
            raise redis.TimeoutError(reason) from None
        except OSError as error:
            raise redis.ConnectionError(f"{host}:{port}: {error}") from None
        for answer in answers:
            if isinstance(answer, redis.RedisError):
                connection.close()
                raise answer
        self._connection = connection
        return connection

    def close(self) -> None:
        """Closes the connection; the next `execute` opens a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _Connection(asyncio.Protocol):
    """Assigns replies to calls by their order, because Redis replies in the order of the commands.

    One timer watches the oldest pending call; a timer for each call would cost as much as the call.
    """

    def __init__(self, timeout: float) -> None:
        self.closed = False
        self._timeout = timeout
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._pending: deque[tuple[asyncio.Future[list[Any]], int, float]] = deque()
        self._unsent: list[bytes] = []
        self._reader = hiredis.Reader(notEnoughData=_INCOMPLETE, replyError=_to_exception)
        self._answers: list[Any] = []

    def execute(self, text: bytes, count: int) -> asyncio.Future[list[Any]]:
        """Sends `count` commands in this iteration of the loop; returns a future of the replies."""
        future = self._loop.create_future()
        if self.closed:
            future.set_exception(redis.ConnectionError("the connection was closed"))
        elif not count:
            future.set_result([])
        else:
            if not self._unsent:
                self._loop.call_soon(self._flush)
            self._unsent.append(text)
            self._pending.append((future, count, self._loop.time() + self._timeout))
            if self._timer is None:
                self._timer = self._loop.call_later(self._timeout, self._check_timeout)
        return future

    def _check_timeout(self) -> None:
        self._timer = None
        if self._pending:
            due = self._pending[0][2]
            if due <= self._loop.time():
                # Closed, because a late reply would be taken for the reply to another call.
                self._fail(redis.TimeoutError(f"no answer within {self._timeout:g} s"))
                self.close()
            else:
                self._timer = self._loop.call_at(due, self._check_timeout)

    def _flush(self) -> None:
        text = b"".join(self._unsent)
        self._unsent.clear()
        if self._transport is not None and not self.closed:
            self._transport.write(text)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not checked: transports of other event loops are not instances of asyncio.Transport.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while (answer := self._reader.gets()) is not _INCOMPLETE:
                self._answers.append(answer)
                future, count, _ = self._pending[0]
                if len(self._answers) == count:
                    self._pending.popleft()
                    if not future.done():  # the caller may have been canceled
                        future.set_result(self._answers)
                    self._answers = []
        except (hiredis.ProtocolError, IndexError):
            self.close()  # not a reply of Redis, or a reply without a pending call

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._fail(redis.ConnectionError(f"the connection was lost ({exc or 'closed'})"))

    def close(self) -> None:
        """Closes the connection; all calls without a reply fail with ConnectionError."""
        self.closed = True
        if self._transport is not None:
            self._transport.abort()
        self._fail(redis.ConnectionError("the connection was closed"))

    def _fail(self, error: redis.RedisError) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for future, _, _ in self._pending:
            if not future.done():
                future.set_exception(error)
        self._pending.clear()


def _to_exception(text: str) -> redis.RedisError:
    word = text.partition(" ")[0]
    if word == "NOSCRIPT":
        return redis.exceptions.NoScriptError(text)
    if word == "LOADING":
        return redis.BusyLoadingError(text)  # a ConnectionError, so the command is retried
    return redis.ResponseError(text)
