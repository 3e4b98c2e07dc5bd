"""Many coroutines on one connection to Redis, and store code that runs on it without a thread."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import redis

from exporter.clock import FakeClock
from exporter.core.rates import Rate
from exporter.errors import StoreUnavailable
from exporter.local import ports
from exporter.local.redis import RedisServer
from exporter.store.base import ExportStore, Idempotency, KeyReused
from exporter.store.memory.store import MemoryStore
from exporter.store.redis import async_runner
from exporter.store.redis.api_keys import KeyRing
from exporter.store.redis.async_connection import Address, AsyncConnection
from exporter.store.redis.rate_limits import RateLimits
from exporter.store.redis.store import RedisStore
from tests.contract.store.given import spec

DATABASE = 9
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_server.url.replace("/0", f"/{DATABASE}")) as found:
        found.flushdb()
        yield found


def beside(client: redis.Redis) -> AsyncConnection:
    channel = AsyncConnection.for_client(client)
    assert channel is not None
    return channel


def run(channel: AsyncConnection, work: Callable[[AsyncConnection], Awaitable[Any]]) -> Any:
    """What the work with a channel gives, in a loop of its own."""

    async def whole() -> Any:
        try:
            return await work(channel)
        finally:
            channel.close()

    return asyncio.run(whole())


@contextlib.asynccontextmanager
async def answering(handler: Handler) -> AsyncIterator[AsyncConnection]:
    """A channel to a server that speaks as the handler does, patient for 0.3 s."""
    callers = []

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        callers.append(asyncio.current_task())
        with contextlib.suppress(ConnectionError):
            await handler(reader, writer)
        writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    channel = AsyncConnection(Address("127.0.0.1", port, 0, None, None, 0.3, 0.3))
    try:
        yield channel
    finally:
        channel.close()
        server.close()
        await asyncio.gather(*filter(None, callers))


def test_each_of_many_gets_the_answers_to_its_own_commands(client: redis.Redis) -> None:
    # Given
    async def one(channel: AsyncConnection, number: int) -> list[Any]:
        name = f"n{number}"
        await channel.execute(
            ("SET", name, number), ("HSET", f"h{number}", "a", number, "b", b"\r\n")
        )
        await asyncio.sleep(number % 7 / 1000)
        return await channel.execute(
            ("GET", name), ("HGETALL", f"h{number}"), ("GET", "none"), ("EXISTS", name)
        )

    async def work(channel: AsyncConnection) -> list[list[Any]]:
        return list(await asyncio.gather(*(one(channel, number) for number in range(300))))

    # When
    found = run(beside(client), work)

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
        async with answering(speak) as channel:
            return await channel.execute(("A",), ("B",))

    # When
    answers = asyncio.run(whole())

    # Then
    assert answers == [[b"\r\n", None, [-5, b"OK"], None], b""]


def test_a_refused_command_fails_whom_it_belongs_to_and_nobody_else(client: redis.Redis) -> None:
    # Given
    client.set("text", "a")

    async def work(channel: AsyncConnection) -> list[Any]:
        questions = [("GET", "text"), ("HGET", "text", "a"), ("GET", "text")]
        return list(await asyncio.gather(*map(channel.execute, questions), return_exceptions=True))

    # When
    first, refused, last = run(beside(client), work)

    # Then
    assert first == last == [b"a"]
    assert isinstance(refused, redis.ResponseError)
    assert "WRONGTYPE" in str(refused)


def test_who_leaves_before_the_answer_takes_nobody_elses(client: redis.Redis) -> None:
    # Given
    client.mset({"a": 1, "b": 2})

    async def work(channel: AsyncConnection) -> list[Any]:
        await channel.execute(("PING",))
        leaving = asyncio.create_task(channel.execute(("GET", "a")))
        staying = asyncio.create_task(channel.execute(("GET", "b")))
        await asyncio.sleep(0)
        leaving.cancel()
        return await staying

    # When
    answer = run(beside(client), work)

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
        async with answering(speak) as channel:
            return await channel.execute(("PING",))

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
        async with answering(speak) as channel:
            began = time.monotonic()
            failures = await asyncio.gather(
                *(channel.execute(("PING",)) for _ in range(20)), return_exceptions=True
            )
            took = time.monotonic() - began
            silent = False
            return list(failures), took, await channel.execute(("PING",))

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
        async with answering(speak) as channel:
            await channel.execute(("PING",))

    # When, Then
    with pytest.raises(redis.ConnectionError):
        asyncio.run(whole())


def test_a_password_is_shown_and_a_wrong_one_told(client: redis.Redis) -> None:
    # Given
    client.acl_setuser("guest", enabled=True, passwords=["+secret"], keys=["*"], commands=["+@all"])
    known = client.connection_pool.connection_kwargs
    where = Address(known["host"], known["port"], DATABASE, "guest", "secret", 1, 1)

    async def work(channel: AsyncConnection) -> list[Any]:
        return await channel.execute(("ACL", "WHOAMI"))

    # When
    named = run(AsyncConnection(where), work)

    # Then
    assert named == [b"guest"]
    with pytest.raises(redis.ResponseError, match="WRONGPASS"):
        run(AsyncConnection(where._replace(password="other")), work)
    client.acl_deluser("guest")


@pytest.mark.parametrize("url", ["rediss://127.0.0.1:1/0", "unix:///tmp/redis.sock"])
def test_a_redis_that_a_channel_cannot_reach_is_left_to_threads(url: str) -> None:
    # Given
    client = redis.Redis.from_url(url)

    # When
    found = async_runner.open_runner(
        KeyRing(client), RateLimits(client), lambda: RedisStore(client)
    )

    # Then
    assert AsyncConnection.for_client(client) is None
    assert isinstance(found, async_runner.ThreadRunner)


def test_a_store_that_is_not_beside_the_keys_is_left_to_threads(client: redis.Redis) -> None:
    # Given
    memory, other = MemoryStore(FakeClock()), RedisStore.connect("redis://127.0.0.1:1/0")

    # When
    def kind(store: ExportStore) -> type:
        return type(async_runner.open_runner(KeyRing(client), RateLimits(client), lambda: store))

    kinds = [kind(store) for store in (memory, other, RedisStore(client))]

    # Then
    assert kinds == [
        async_runner.ThreadRunner,
        async_runner.ThreadRunner,
        async_runner.ReplayRunner,
    ]


# -- store code without a thread -------------------------------------------------------------------


def rehearsed(client: redis.Redis, work: Callable[[async_runner.AsyncRunner], Any]) -> Any:
    """What the work gives when no thread does it."""

    async def whole(channel: AsyncConnection) -> Any:
        return await async_runner.ReplayRunner(channel).run(work)

    return run(beside(client), whole)


def test_keys_records_and_limits_are_the_same_without_a_thread(client: redis.Redis) -> None:
    # Given
    ring, store = KeyRing(client), RedisStore(client)
    secret = ring.create("ann", balance=3)
    store.create(spec("e"))

    # When
    key, no_key = rehearsed(client, lambda t: (t.keys.find(secret), t.keys.find("exp_wrong")))
    record, no_record = rehearsed(client, lambda t: (t.store.get("e"), t.store.get("f")))
    windows = [rehearsed(client, lambda t: t.limits.acquire("n", Rate(2, 60))) for _ in range(3)]

    # Then
    assert key == ring.find(secret)
    assert key.plan.metered
    assert record == store.get("e")
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
    first = rehearsed(client, lambda t: t.store.create(spec("e"), mark))
    again = rehearsed(client, lambda t: t.store.create(spec("other"), mark))

    # Then
    assert first == again == store.get("e")
    assert store.counters()["exports_created"] == 1
    with pytest.raises(KeyReused):
        rehearsed(client, lambda t: t.store.create(spec("e"), Idempotency("k", "g")))


def test_a_revoked_key_is_gone_with_the_next_question(client: redis.Redis) -> None:
    # Given
    ring = KeyRing(client)
    secret = ring.create("ann")
    before = rehearsed(client, lambda t: t.keys.find(secret))

    # When
    ring.revoke(before.id)

    # Then
    assert rehearsed(client, lambda t: t.keys.find(secret)) is None


def test_two_questions_that_do_not_need_each_other_cost_one_round_trip(
    client: redis.Redis,
) -> None:
    # Given
    secret = KeyRing(client).create("ann")
    RedisStore(client).create(spec("e"))
    channel = beside(client)
    asked = []

    class Counting(AsyncConnection):
        async def execute(self, *commands: Any) -> list[Any]:
            asked.append([command[0] for command in commands])
            return await channel.execute(*commands)

        def close(self) -> None:
            channel.close()

    def work(turn: async_runner.AsyncRunner) -> Any:
        return turn.run_both(lambda: turn.keys.find(secret), lambda: turn.store.get("e"))

    async def whole(counting: AsyncConnection) -> Any:
        return await async_runner.ReplayRunner(counting).run(work)

    # When
    key, record = run(Counting(Address("", 0, 0, None, None, 1, 1)), whole)

    # Then
    assert (key.user_id, record.id) == ("ann", "e")
    assert asked == [["GET", "HEXISTS", "HGETALL"]]


def test_what_the_first_of_two_raises_comes_before_the_second(client: redis.Redis) -> None:
    # Given
    def refuse() -> None:
        raise LookupError("no key")

    # When, Then
    with pytest.raises(LookupError):
        rehearsed(client, lambda t: t.run_both(refuse, lambda: t.store.get("e")))


def test_while_redis_is_away_work_without_a_thread_says_so_too() -> None:
    # Given
    url = f"redis://127.0.0.1:{ports.find_free(1)[0]}/0"
    client = RedisStore.connect(url, patient=False).client

    # When, Then
    with pytest.raises(StoreUnavailable):
        rehearsed(client, lambda t: t.store.get("e"))


def test_a_wait_for_an_answer_holds_nobody_up(client: redis.Redis) -> None:
    # Given
    store = RedisStore(client)
    store.create(spec("e"))

    async def whole(channel: AsyncConnection) -> list[Any]:
        shared = async_runner.ReplayRunner(channel)

        async def one(number: int) -> Any:
            return await shared.run(lambda t: (t.store.get("e"), number))

        return list(await asyncio.gather(*map(one, range(50))))

    # When
    found = run(beside(client), whole)

    # Then
    assert [number for _, number in found] == list(range(50))
    assert {record.id for record, _ in found} == {"e"}
