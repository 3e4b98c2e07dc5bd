"""Many coroutines on one connection to Redis, and calls of the stores that are sent over it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any, TypeVar

import pytest
import redis

from exporter.core.rates import Rate
from exporter.errors import StoreUnavailable
from exporter.local import ports
from exporter.local.redis import RedisServer
from exporter.store.base import NO_QUOTA, Idempotency, KeyReused
from exporter.store.redis import calls
from exporter.store.redis.admissions import Admission
from exporter.store.redis.api_keys import KeyRing
from exporter.store.redis.async_connection import AsyncConnection
from exporter.store.redis.calls import Call, both
from exporter.store.redis.rate_limits import Count, RateLimits, Window
from exporter.store.redis.store import RedisStore
from tests.contract.store.given import spec

DATABASE = 9
T = TypeVar("T")
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_server.url.replace("/0", f"/{DATABASE}")) as found:
        found.flushdb()
        yield found


def run(connection: AsyncConnection, work: Callable[[AsyncConnection], Awaitable[Any]]) -> Any:
    """What the work with a connection gives, in a loop of its own."""

    async def whole() -> Any:
        try:
            return await work(connection)
        finally:
            connection.close()

    return asyncio.run(whole())


def impatient(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, socket_timeout=0.3, socket_connect_timeout=0.3)


@contextlib.asynccontextmanager
async def answering(handler: Handler) -> AsyncIterator[AsyncConnection]:
    """A connection to a server that speaks as the handler does, patient for 0.3 s."""
    callers = []

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        callers.append(asyncio.current_task())
        with contextlib.suppress(ConnectionError):
            await handler(reader, writer)
        writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    connection = AsyncConnection(impatient(f"redis://127.0.0.1:{port}"))
    try:
        yield connection
    finally:
        connection.close()
        server.close()
        await asyncio.gather(*filter(None, callers))


def test_each_of_many_gets_the_answers_to_its_own_commands(client: redis.Redis) -> None:
    # Given
    async def one(connection: AsyncConnection, number: int) -> list[Any]:
        name = f"n{number}"
        await connection.execute(
            ("SET", name, number), ("HSET", f"h{number}", "a", number, "b", b"\r\n")
        )
        await asyncio.sleep(number % 7 / 1000)
        return await connection.execute(
            ("GET", name), ("HGETALL", f"h{number}"), ("GET", "none"), ("EXISTS", name)
        )

    async def work(connection: AsyncConnection) -> list[list[Any]]:
        return list(await asyncio.gather(*(one(connection, number) for number in range(300))))

    # When
    found = run(AsyncConnection(client), work)

    # Then
    assert found == [[b"%d" % n, [b"a", b"%d" % n, b"b", b"\r\n"], None, 1] for n in range(300)]
    assert client.get("n7") == b"7"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_an_answer_in_pieces_is_the_answer(size: int) -> None:
    # Given
    text = b"*4\r\n$2\r\n\r\n\r\n*-1\r\n*2\r\n:-5\r\n+OK\r\n$-1\r\n" + b"$0\r\n\r\n"

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        for at in range(0, len(text), size):
            writer.write(text[at : at + size])
            await writer.drain()
            await asyncio.sleep(0)
        await reader.read()

    async def whole() -> list[Any]:
        async with answering(speak) as connection:
            return await connection.execute(("A",), ("B",))

    # When
    answers = asyncio.run(whole())

    # Then
    assert answers == [[b"\r\n", None, [-5, b"OK"], None], b""]


def test_a_refused_command_fails_whom_it_belongs_to_and_nobody_else(client: redis.Redis) -> None:
    # Given
    client.set("text", "a")

    async def work(connection: AsyncConnection) -> list[Any]:
        questions = [("GET", "text"), ("HGET", "text", "a"), ("GET", "text")]
        return list(
            await asyncio.gather(*map(connection.execute, questions), return_exceptions=True)
        )

    # When
    first, refused, last = run(AsyncConnection(client), work)

    # Then
    assert first == last == [b"a"]
    assert isinstance(refused, redis.ResponseError)
    assert "WRONGTYPE" in str(refused)


def test_who_leaves_before_the_answer_takes_nobody_elses(client: redis.Redis) -> None:
    # Given
    client.mset({"a": 1, "b": 2})

    async def work(connection: AsyncConnection) -> list[Any]:
        await connection.execute(("PING",))
        leaving = asyncio.create_task(connection.execute(("GET", "a")))
        staying = asyncio.create_task(connection.execute(("GET", "b")))
        await asyncio.sleep(0)
        leaving.cancel()
        return await staying

    # When
    answer = run(AsyncConnection(client), work)

    # Then
    assert answer == [b"2"]


def test_a_lost_connection_is_made_anew_and_the_question_asked_again() -> None:
    # Given: a server that hangs up on its first caller
    callers = []

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        callers.append(await reader.read(1000))
        if len(callers) > 1:
            writer.write(b"+well\r\n")
            await reader.read()

    async def whole() -> list[Any]:
        async with answering(speak) as connection:
            return await connection.execute(("PING",))

    # When
    answers = asyncio.run(whole())

    # Then
    assert answers == [b"well"]
    assert callers == [b"*1\r\n$4\r\nPING\r\n"] * 2


def test_a_silent_redis_is_given_up_after_two_tries_by_all_who_wait_and_asked_anew_later() -> None:
    # Given
    silent = True

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            if not silent:
                writer.write(b"+well\r\n")

    async def whole() -> tuple[list[Any], float, list[Any]]:
        nonlocal silent
        async with answering(speak) as connection:
            began = time.monotonic()
            failures = await asyncio.gather(
                *(connection.execute(("PING",)) for _ in range(20)), return_exceptions=True
            )
            took = time.monotonic() - began
            silent = False
            return list(failures), took, await connection.execute(("PING",))

    # When
    failures, took, after = asyncio.run(whole())

    # Then
    assert {type(failure) for failure in failures} == {redis.TimeoutError}
    assert 0.6 < took < 2
    assert after == [b"well"]


def test_what_is_no_answer_of_a_redis_ends_the_connection() -> None:
    # Given
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()

    async def whole() -> None:
        async with answering(speak) as connection:
            await connection.execute(("PING",))

    # When, Then
    with pytest.raises(redis.ConnectionError):
        asyncio.run(whole())


def test_a_password_is_shown_and_a_wrong_one_told(client: redis.Redis) -> None:
    # Given
    client.acl_setuser("guest", enabled=True, passwords=["+secret"], keys=["*"], commands=["+@all"])
    port = client.connection_pool.connection_kwargs["port"]

    def reach(user: str) -> list[Any]:
        connection = AsyncConnection(impatient(f"redis://{user}@127.0.0.1:{port}/{DATABASE}"))
        found: list[Any] = run(
            connection, lambda one: one.execute(("ACL", "WHOAMI"), ("CLIENT", "INFO"))
        )
        return found

    # When
    name, known = reach("guest:secret")

    # Then
    assert name == b"guest"
    assert f"db={DATABASE} ".encode() in known
    with pytest.raises(redis.ResponseError, match="WRONGPASS"):
        reach("guest:other")
    client.acl_deluser("guest")


# -- calls of the stores ---------------------------------------------------------------------------


def awaited(client: redis.Redis, call: Call[T]) -> T:
    """What the call gives when no thread waits for it."""
    found: T = run(AsyncConnection(client), lambda connection: connection.run(call))
    return found


def test_keys_records_and_limits_are_the_same_without_a_thread(client: redis.Redis) -> None:
    # Given
    ring, store, limits = KeyRing(client), RedisStore(client), RateLimits(client)
    secret = ring.create("ann", balance=3)
    store.create(spec("e"))

    # When
    key, no_key = (awaited(client, ring.find_call(one)) for one in (secret, "exp_wrong"))
    record, no_record = (awaited(client, store.show_call(one)) for one in ("e", "f"))
    windows = [awaited(client, limits.acquire_call("n", Rate(2, 60))) for _ in range(3)]

    # Then
    assert key is not None
    assert key == ring.find(secret)
    assert key.plan.metered
    assert record == store.show("e")
    assert (no_key, no_record) == (None, None)
    assert [window.allowed for window in windows] == [True, True, False]
    assert [window.remaining for window in windows] == [1, 0, 0]


def test_an_export_is_created_once_without_a_thread_also_when_no_script_is_loaded(
    client: redis.Redis,
) -> None:
    # Given
    store = RedisStore(client)
    client.script_flush()
    mark = Idempotency("k", "f")

    # When
    first = awaited(client, store.create_call(spec("e"), mark, NO_QUOTA))
    again = awaited(client, store.create_call(spec("other"), mark, NO_QUOTA))

    # Then
    assert first == again == store.get("e")
    assert store.counters()["exports_created"] == 1
    with pytest.raises(KeyReused):
        awaited(client, store.create_call(spec("e"), Idempotency("k", "g"), NO_QUOTA))


def test_a_creation_whose_answer_was_lost_is_not_refused_for_its_own_count(
    client: redis.Redis,
) -> None:
    # Given
    store, rate = RedisStore(client), Rate(1, 60)
    windows: list[Window] = []
    call = store.create_call(
        spec("e"), None, NO_QUOTA, Admission(counts=[Count("n", rate, windows.append)])
    )

    # When
    first, again = awaited(client, call), awaited(client, call)

    # Then
    assert first == again
    assert [(window.allowed, window.remaining) for window in windows] == [(True, 0), (True, 0)]
    assert not RateLimits(client).acquire("n", rate).allowed
    assert store.counters()["exports_created"] == 1


def test_a_revoked_key_is_gone_with_the_next_question(client: redis.Redis) -> None:
    # Given
    ring = KeyRing(client)
    secret = ring.create("ann")
    call = ring.find_call(secret)
    before = awaited(client, call)
    assert before is not None

    # When
    ring.revoke(before.id)

    # Then
    assert awaited(client, call) is None


@pytest.mark.parametrize("send", [calls.run, awaited])
def test_two_calls_that_do_not_need_each_other_cost_one_round_trip(
    client: redis.Redis, send: Callable[[redis.Redis, Call[Any]], Any]
) -> None:
    # Given
    secret = KeyRing(client).create("ann")
    RedisStore(client).create(spec("e"))
    client.script_flush()

    # When
    call = both(
        RateLimits(client).acquire_call("n", Rate(2, 60)),
        both(KeyRing(client).find_call(secret), RedisStore(client).show_call("e")),
    )
    window, (key, record) = send(client, call)

    # Then
    assert [command[0] for command in call.commands] == ["EVALSHA", "GET", "HEXISTS", "HMGET"]
    assert window.allowed
    assert (key.user_id, record.id) == ("ann", "e")


def test_what_the_first_of_two_calls_raises_comes_before_the_second(client: redis.Redis) -> None:
    # Given
    def refuse(error: Exception) -> Call[Any]:
        def read(replies: Sequence[Any]) -> None:
            raise error

        return Call((("PING",),), read)

    # When, Then
    with pytest.raises(LookupError):
        awaited(client, both(refuse(LookupError()), refuse(ValueError())))


def test_while_redis_is_away_work_without_a_thread_says_so_too() -> None:
    # Given
    url = f"redis://127.0.0.1:{ports.find_free(1)[0]}/0"
    client = RedisStore.connect(url, patient=False).client

    # When, Then
    with pytest.raises(StoreUnavailable):
        awaited(client, RedisStore(client).show_call("e"))


def test_a_wait_for_an_answer_holds_nobody_up(client: redis.Redis) -> None:
    # Given
    store = RedisStore(client)
    store.create(spec("e"))

    async def whole(connection: AsyncConnection) -> list[Any]:
        async def one(number: int) -> Any:
            return await connection.run(store.show_call("e")), number

        return list(await asyncio.gather(*map(one, range(50))))

    # When
    found = run(AsyncConnection(client), whole)

    # Then
    assert [number for _, number in found] == list(range(50))
    assert {record.id for record, _ in found} == {"e"}
