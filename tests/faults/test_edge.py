"""An API process without a proxy, while thousands of connections are silent or read nothing."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import psutil
import pytest
import redis

from exporter.local import ports
from exporter.local.redis import RedisServer
from exporter.store.redis.api_keys import KeyRing

MAX_MEGABYTES = 200
MAX_SECONDS = 1.0
"""Time in which others are answered, one in twenty polls excepted: the machine has other load."""
DATABASE = 9
CONFIG = """\
[sources.board]
type = "hirebase"
base_url = "http://127.0.0.1:9"
api_key = "unused"
"""


class Api(NamedTuple):
    """A running API process."""

    process: psutil.Process
    port: int
    key: str
    other_key: str
    log: Path


@pytest.fixture
def many_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] < 5_000:
        pytest.skip(f"this test opens 3,000 connections, and {before[1]} files are permitted")
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture(params=[5_000, 1_024], ids=["many-files", "few-files"])
def api(
    request: pytest.FixtureRequest, many_files: None, redis_server: RedisServer, tmp_path: Path
) -> Iterator[Api]:
    url, port = redis_server.url.replace("/0", f"/{DATABASE}"), ports.find_free(1)[0]
    with redis.Redis.from_url(url) as client:
        client.flushdb()
        key, other_key = (KeyRing(client).create(user) for user in ("ann", "bob"))
    (tmp_path / "exporter.toml").write_text(CONFIG, "utf-8")
    env = os.environ | {
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "EXPORTER_CONFIG": str(tmp_path / "exporter.toml"),
        "EXPORTER_REDIS_URL": url,
        "EXPORTER_S3_ENDPOINT_URL": "http://127.0.0.1:9",
        "EXPORTER_HEAD_TIMEOUT": "3s",
        "AWS_ACCESS_KEY_ID": "unused",
        "AWS_SECRET_ACCESS_KEY": "unused",
    }
    files, log = request.param, tmp_path / "log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [sys.executable, "-m", "exporter.cli", "api", "--port", str(port)],
            env=env,
            cwd=tmp_path,
            stdout=output,
            stderr=output,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files)),
        ) as process,
    ):
        for _ in range(150):
            with contextlib.suppress(httpx.HTTPError):
                httpx.get(f"http://127.0.0.1:{port}/openapi.json")
                break
            time.sleep(0.2)
        yield Api(psutil.Process(process.pid), port, key, other_key, log)
        process.kill()


def watched(api: Api, attack: Callable[[list[socket.socket]], None]) -> tuple[float, int]:
    """Returns how long others wait during the attack (95 of 100), and the most megabytes."""
    seconds, megabytes, ended = [], [0], threading.Event()
    url, headers = f"http://127.0.0.1:{api.port}/v1/exports/none", {"X-API-Key": api.other_key}
    tls = httpx.create_ssl_context()

    def others() -> None:
        while not ended.wait(0.05):
            begun = time.monotonic()
            assert httpx.get(url, headers=headers, timeout=30, verify=tls).status_code == 404
            seconds.append(time.monotonic() - begun)
            megabytes[0] = max(megabytes[0], api.process.memory_info().rss >> 20)

    other = threading.Thread(target=others)
    other.start()
    clients: list[socket.socket] = []
    try:
        attack(clients)
    finally:
        ended.set()
        other.join()
        for client in clients:
            client.close()
    return sorted(seconds)[int(len(seconds) * 0.95)], megabytes[0]


def connect(api: Api, clients: list[socket.socket], receive_buffer: int = 0) -> socket.socket:
    client = socket.socket()
    clients.append(client)
    if receive_buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.settimeout(10)
    client.connect(("127.0.0.1", api.port))
    return client


def test_3000_silent_and_dribbling_connections_delay_nobody(api: Api) -> None:
    # Given
    def attack(clients: list[socket.socket]) -> None:
        for number in range(3_000):
            client = connect(api, clients)
            with contextlib.suppress(OSError):
                client.sendall(b"GET / HTTP/1.1\r\n" if number % 2 else b"")
        for _ in range(5):
            for client in clients:
                with contextlib.suppress(OSError):
                    client.send(b"a: b\r\n")
            time.sleep(1)

    # When
    seconds, megabytes = watched(api, attack)

    # Then
    assert seconds < MAX_SECONDS
    assert megabytes < MAX_MEGABYTES
    assert api.log.stat().st_size < 10_000


def test_1000_clients_that_read_nothing_delay_nobody(api: Api) -> None:
    # Given
    body = {"source": "board", "query": {"job_titles": ["x" * 60] * 800}, "format": "csv"}
    headers = {"X-API-Key": api.key}
    with httpx.Client(base_url=f"http://127.0.0.1:{api.port}", headers=headers) as client:
        for _ in range(30):
            client.post("/v1/exports", json=body, timeout=30).raise_for_status()
    ask = f"GET /v1/exports?limit=100 HTTP/1.1\r\nx-api-key: {api.key}\r\n\r\n".encode()

    def attack(clients: list[socket.socket]) -> None:
        for _ in range(1_000):
            connect(api, clients, receive_buffer=4_096).sendall(ask)
        time.sleep(5)

    # When
    seconds, megabytes = watched(api, attack)

    # Then
    assert seconds < MAX_SECONDS
    assert megabytes < MAX_MEGABYTES
