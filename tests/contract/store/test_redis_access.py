"""A Redis that refuses what the service needs is named with its remedy, before any work begins."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import pytest
import redis

from exporter.errors import ConfigurationError, StoreUnavailable
from exporter.local.redis import RedisServer
from exporter.store.redis import durability, keys, probe
from exporter.store.redis.diagnosis import NEEDED_RULES
from exporter.store.redis.keys import DEFAULT
from tests.contract.store.given import DATABASE

USER = "narrow"
NOTHING_MORE = ("~{exporter}:*", *NEEDED_RULES.split(), "resetchannels")
"""The smallest ACL, which deploy/redis.conf shows."""

Limit = Callable[..., str]


@pytest.fixture
def limited(client: redis.Redis, redis_server: RedisServer) -> Iterator[Limit]:
    """Returns a function that gives a user rules, and returns the user's URL of a database."""

    def limit(*rules: str, database: int = DATABASE) -> str:
        client.execute_command("ACL", "SETUSER", USER, "reset", "on", ">pw", *rules)  # type: ignore[no-untyped-call]
        where = redis_server.url.split("@")[-1].removeprefix("redis://").removesuffix("/0")
        return f"redis://{USER}:pw@{where}/{database}"

    yield limit
    client.execute_command("ACL", "DELUSER", USER)  # type: ignore[no-untyped-call]


def check(url: str) -> Sequence[str]:
    with durability.connect_once(url) as client:
        return durability.check(client, DEFAULT)


def test_the_probe_runs_every_command_of_the_scripts() -> None:
    # Given
    folders = [resources.files(f"exporter.{name}").joinpath("scripts") for name in FOLDERS]
    scripts = [file.read_text("utf-8") for folder in folders for file in folder.iterdir()]
    # When
    used = set(re.findall(r"redis\.call\('([A-Z]+)'", "".join(scripts)))
    # Then
    assert used
    assert used <= {line.split()[0] for line in probe.RECORD_COMMANDS.strip().splitlines()}


FOLDERS = ("store.redis", "webhooks")


@pytest.mark.external
@pytest.mark.parametrize(
    ("rules", "named"),
    [
        (("~*", "+@all", "-@scripting"), "may not run EVALSHA: run ACL SETUSER narrow"),
        (("~*", "+@all", "-hset", "-zadd"), r"may not run HSET, ZADD: .* \+hset \+zadd"),
        (("~*", "+@all", "-@hash"), "may not run HSET, .* and 4 more"),
        (("~*", "+@all", "-brpop"), "may not run BRPOP"),
        (("~*", "+@all", "-multi"), "may not run MULTI"),
        (("~*", "+@all", "-select"), "may not run SELECT"),
        (
            ("~*", "+@read", "+@connection", "+select", "+@scripting", "+@transaction"),
            "may not run SET, ",
        ),
        (("~other:*", "+@all"), r"may not use all keys .* ~\{exporter\}:"),
        (("%R~*", "+@all"), "may not use all keys"),
    ],
)
def test_a_user_who_may_not_do_all_that_records_need_is_named(
    limited: Limit, client: redis.Redis, rules: Sequence[str], named: str
) -> None:
    # Given
    if rules[0].startswith("%") and int(str(client.info("server")["redis_version"])[0]) < 7:
        pytest.skip("this server cannot grant reading alone")
    url = limited(*rules)
    # When / Then
    with pytest.raises(ConfigurationError, match=f"EXPORTER_REDIS_URL: .*'narrow' {named}"):
        check(url)


@pytest.mark.external
@pytest.mark.parametrize(
    ("rules", "named"),
    [
        (("~*", "+@all", "-@scripting"), "may not run EVALSHA"),
        (("~*", "+@all", "-ping"), "may not run PING"),
        (("~*", "+@all", "-lpush"), "may not run LPUSH"),
        (("~{another}:*", "+@all"), "may not use all keys"),
    ],
)
def test_a_user_who_may_not_do_all_that_celery_needs_is_named(
    limited: Limit, rules: Sequence[str], named: str
) -> None:
    # Given
    url = limited(*rules, database=DATABASE + 1)
    # When / Then
    with pytest.raises(ConfigurationError, match=f"EXPORTER_BROKER_URL: .*'narrow' {named}"):
        durability.check_broker(url, DEFAULT, "EXPORTER_BROKER_URL")


def test_the_smallest_user_is_the_one_that_the_shipped_file_shows() -> None:
    # Given
    shipped = Path("deploy/redis.conf").read_text("utf-8")
    # When / Then
    assert f"~{{exporter}}:* {NEEDED_RULES}\n" in shipped


@pytest.mark.external
def test_the_smallest_user_passes_and_the_probe_leaves_nothing(
    limited: Limit, client: redis.Redis
) -> None:
    # Given
    url = limited(*NOTHING_MORE)
    # When
    warnings = [*check(url), *durability.check_broker(url, DEFAULT, "X")]
    # Then
    assert [one for one in warnings if "security holes" not in one] == []
    assert client.dbsize() == 0


@pytest.mark.parametrize(
    ("rules", "allowed"),
    [
        (("+@pubsub", f"&{{exporter}}:/{DATABASE}.celery.pidbox"), True),
        (("+@pubsub", "&other"), False),
        (("&*",), False),
    ],
)
def test_the_channel_of_celery_is_used_only_where_the_user_may(
    limited: Limit, rules: Sequence[str], allowed: bool
) -> None:
    # Given, When, Then
    assert durability.allows_channels(limited(*NOTHING_MORE, *rules), DEFAULT) is allowed


@pytest.mark.external
@pytest.mark.parametrize(
    ("rules", "status"),
    [(NOTHING_MORE, 0), (("~*", "+@all", "-@scripting"), os.EX_CONFIG)],
)
def test_a_worker_runs_without_channels_and_ends_with_78_without_scripts(
    limited: Limit, client: redis.Redis, tmp_path: Path, rules: Sequence[str], status: int
) -> None:
    # Given
    env = os.environ | {"EXPORTER_REDIS_URL": limited(*rules), "BOARD_KEY": "k"}
    worker = subprocess.Popen(
        [sys.executable, "-m", "exporter.cli", "worker", "--concurrency", "1"],
        cwd=tmp_path,
        env=env,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    # When
    deadline = time.monotonic() + 60
    while worker.poll() is None and not client.keys(DEFAULT(keys.WORKERS, "*")):
        assert time.monotonic() < deadline, "neither alive nor ended"
        time.sleep(0.1)
    worker.send_signal(signal.SIGTERM)
    _, said = worker.communicate(timeout=30)
    # Then
    assert worker.returncode == status, said
    assert ("may not run EVALSHA" in said) == bool(status)
    assert "Connection to broker lost" not in said
    assert "Traceback" not in said
    assert ("may use no channels" in said) == (status == 0)


@contextmanager
def answering(text: bytes, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """Runs a server that gives every command the same answer; yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    plain, _ = listener.accept()
                except OSError:
                    return
                try:
                    with plain, context.wrap_socket(plain, True) if context else plain as taken:
                        while data := taken.recv(4096):
                            taken.sendall(text * max(1, data.count(b"*")))
                except OSError:
                    continue

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]


@pytest.mark.external
@pytest.mark.parametrize(
    ("answer", "error", "named"),
    [
        (b"-NOAUTH Authentication required.", ConfigurationError, "requires a password"),
        (b"-WRONGPASS invalid username-password pair", ConfigurationError, "rejects the user"),
        (b"-ERR DB index is out of range", ConfigurationError, "has no database 0"),
        (b"-CLUSTERDOWN Hash slot not served", ConfigurationError, "is a Redis Cluster"),
        (b"-MOVED 866 10.0.0.7:6379", ConfigurationError, "is a Redis Cluster"),
        (b"-DENIED Redis is running in protected mode", ConfigurationError, "protected mode"),
        (b"HTTP/1.1 400 Bad Request", ConfigurationError, "is no Redis: give the address"),
        (b"-LOADING Redis is loading the dataset", StoreUnavailable, "still loading its data"),
        (b"-ERR max number of clients reached", StoreUnavailable, "raise maxclients"),
    ],
)
def test_each_answer_of_redis_is_named_and_waited_for_only_if_that_helps(
    answer: bytes, error: type[Exception], named: str
) -> None:
    # Given
    with answering(answer + b"\r\n") as port:
        url = f"redis://127.0.0.1:{port}/0"
        # When / Then
        with pytest.raises(error, match=named):
            durability.check_broker(url, DEFAULT, "EXPORTER_BROKER_URL")


@pytest.mark.external
def test_tls_where_there_is_none_is_named(redis_server: RedisServer) -> None:
    # Given
    url = redis_server.url.replace("redis://", "rediss://")
    # When / Then
    with pytest.raises(ConfigurationError, match="speaks no TLS: write redis:// instead"):
        check(url)
