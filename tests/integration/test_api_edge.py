"""What one connection may cost the API, without a proxy before it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Iterator
from datetime import timedelta

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from exporter.api import connections
from exporter.settings import Settings
from tests.integration.api_server import Server, Service, captured_logs

MAX_CONNECTIONS = 8
TIMEOUT = timedelta(seconds=1)
HEAD = b"GET /v1/exports HTTP/1.1\r\nhost: x\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    settings = Settings(
        max_connections=MAX_CONNECTIONS,
        head_timeout=TIMEOUT,
        body_timeout=TIMEOUT,
        reader_timeout=TIMEOUT,
    )
    with Server(settings).running() as running:
        yield running


@contextlib.contextmanager
def connected(api: Service, receive_buffer: int | None = None) -> Iterator[socket.socket]:
    with socket.socket() as client:
        if receive_buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.settimeout(5)
        client.connect((api.http.base_url.host, api.http.base_url.port))
        yield client


def answer(client: socket.socket) -> bytes:
    """Returns all that the API sends until it closes the connection."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while more := client.recv(65_536):
            received += more
    return received


@pytest.mark.parametrize("line", [b"a: " + b"x" * 70_000, b"a: b\r\n" * 12_000])
def test_a_head_of_more_than_64_kilobytes_is_refused_before_its_end(
    api: Service, line: bytes
) -> None:
    # Given
    with connected(api) as client:
        # When: the head has no end
        client.sendall(HEAD + line)

        # Then
        assert answer(client).startswith(b"HTTP/1.1 431 ")


def test_a_trailer_is_bounded_like_a_head(api: Service) -> None:
    # Given
    head = f"POST /v1/exports HTTP/1.1\r\nhost: x\r\nx-api-key: {api.ann}\r\n"

    # When
    with connected(api) as client:
        client.sendall(head.encode() + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(20):
                client.sendall(b"a: " + b"x" * 65_536)

        # Then
        assert b"HTTP/1.1 4" in answer(client)


@pytest.mark.parametrize(("sent", "status"), [(b"", b""), (HEAD, b"HTTP/1.1 408 ")])
def test_a_connection_without_a_whole_head_is_closed_after_the_timeout(
    api: Service, sent: bytes, status: bytes
) -> None:
    # Given
    begun = time.monotonic()
    with connected(api) as client:
        client.sendall(sent)

        # When: the client dribbles
        with contextlib.suppress(OSError):
            while sent and time.monotonic() < begun + 0.8:
                client.sendall(b"a: b\r\n")
                time.sleep(0.1)

        # Then
        assert answer(client)[:13] == status
        assert time.monotonic() - begun < 4


def test_a_body_that_does_not_arrive_is_refused_after_the_timeout(api: Service) -> None:
    # Given
    head = f"POST /v1/exports HTTP/1.1\r\nx-api-key: {api.ann}\r\ncontent-length: 100\r\n\r\n"
    with connected(api) as client:
        # When
        client.sendall(head.encode() + b"{")

        # Then
        assert answer(client).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/exports",
        "/v2/jobs/export",
        "/v1/exports/estimate",
        "/v2/jobs/search",
        "/v2/jobs/estimate",
        "/v2/jobs/expired-jobs/export",
        "/v1/professional_network/job/bulk_collect/filter",
        "/v1/professional_network/job/bulk_collect/id_file",
        "/v2/data_requests/job_base/filter",
        "/v2/data_requests/job_base/ids",
        "/v2/data_requests/job_base/es_dsl",
        "/v1/webhook-endpoints",
        "/v1/webhook-endpoints/we_1/rotate",
        "/v1/webhook-endpoints/we_1/recover",
    ],
)
def test_a_caller_without_a_key_is_refused_before_the_body_is_sent(api: Service, path: str) -> None:
    # Given
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n"

    # When
    with connected(api) as client:
        client.sendall(head.encode() + b"content-length: 9000000\r\n\r\n")
        first = client.recv(65_536)

    # Then
    assert first.startswith(b"HTTP/1.1 401 ")


def test_new_connections_replace_the_silent_ones_when_all_are_in_use(api: Service) -> None:
    # Given
    with contextlib.ExitStack() as opened:
        silent = [opened.enter_context(connected(api)) for _ in range(3 * MAX_CONNECTIONS)]

        # When
        statuses = [
            httpx.get(api.http.base_url.join("/v1/exports"), headers=api.http.headers).status_code
            for _ in range(5)
        ]

        # Then
        assert statuses == [200] * 5
        assert answer(silent[0]) == b""


def test_a_new_connection_gets_503_while_every_connection_has_a_request(api: Service) -> None:
    # Given
    created = api.http.post("/v1/exports", json={"source": "board", "query": {}, "format": "csv"})
    api.http.close()
    poll = f"GET /v1/exports/{created.json()['id']}?wait=2 HTTP/1.1\r\nx-api-key: {api.ann}\r\n\r\n"
    with contextlib.ExitStack() as opened:
        for _ in range(MAX_CONNECTIONS):
            opened.enter_context(connected(api)).sendall(poll.encode())
        time.sleep(0.3)

        # When
        with connected(api) as client:
            refused = answer(client)

    # Then
    assert refused.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: " in refused


def test_a_client_that_does_not_read_is_cut_off_after_the_timeout(api: Service) -> None:
    # Given
    search = {"source": "board", "query": {"job_titles": ["x" * 50] * 300}, "format": "csv"}
    for _ in range(30):
        api.http.post("/v1/exports", json=search).raise_for_status()
    ask = f"GET /v1/exports?limit=100 HTTP/1.1\r\nhost: x\r\nx-api-key: {api.ann}\r\n\r\n"
    with connected(api, receive_buffer=4_096) as client:
        # When
        client.sendall(ask.encode() * 8)
        time.sleep(4)

        # Then
        assert len(answer(client)) < 8 * 30 * 15_000


def test_a_client_may_not_send_requests_without_end_before_the_first_answer(api: Service) -> None:
    # Given
    ask = f"GET /v1/exports HTTP/1.1\r\nhost: x\r\nx-api-key: {api.ann}\r\n\r\n".encode()

    # When
    with connected(api) as client:
        client.sendall(ask * (connections.MAX_PIPELINED_REQUESTS // 2))
        few = b""
        while few.count(b"HTTP/1.1 200 ") < connections.MAX_PIPELINED_REQUESTS // 2:
            few += client.recv(65_536)
    with connected(api) as client:
        client.sendall(ask * 1_000)
        many = answer(client)

    # Then
    assert many.count(b"HTTP/1.1 200 ") < 100


def test_a_refused_body_that_is_sent_all_the_same_does_not_cost_the_connection(
    api: Service,
) -> None:
    # Given
    body = json.dumps({"source": "board", "query": {}, "format": "csv"}).encode()
    head = f"POST /v1/exports HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n"

    # When
    with connected(api) as client:
        client.sendall(head.encode() + b"\r\n")
        time.sleep(0.3)
        refused = client.recv(65_536)
        client.sendall(body)
        client.sendall(head.encode() + f"x-api-key: {api.ann}\r\n\r\n".encode() + body)
        accepted = client.recv(65_536)

    # Then
    assert refused.startswith(b"HTTP/1.1 401 ")
    assert accepted.startswith(b"HTTP/1.1 202 ")


def test_an_answer_arrives_in_one_piece(api: Service) -> None:
    # Given
    with connected(api) as client:
        # When
        client.sendall(HEAD + b"\r\n")
        received = client.recv(65_536)

        # Then
        head, _, body = received.partition(b"\r\n\r\n")
        assert b"content-length: %d\r\n" % len(body) in head
        assert body


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_a_head_does_not_wait_for_a_body(api: Service, server: Server, method: bytes) -> None:
    # Given: an app whose body comes much later
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(0.5 if scope["method"] == "GET" else 0)
        await send({"type": "http.response.body", "body": b"late"})

    server.app = app
    with connected(api) as client:
        # When
        client.sendall(method + b" / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        first, rest = client.recv(65_536), answer(client)

        # Then
        assert first.startswith(b"HTTP/1.1 200 OK\r\n")
        assert first.endswith(b"\r\n\r\n")
        assert rest == (b"4\r\nlate\r\n0\r\n\r\n" if method == b"GET" else b"")


def test_a_process_without_free_files_logs_one_line_a_minute() -> None:
    # Given
    app = FastAPI()
    options = {"host": "127.0.0.1", "port": 0, "lifespan": "off", "log_level": "critical"}
    server = connections.server(app, connections.bounds(Settings()), **options)

    async def run() -> None:
        server.config.load()
        server.lifespan = server.config.lifespan_class(server.config)
        await server.startup()
        # When: asyncio reports each of the accepts that fail
        message = "socket.accept() out of system resource"
        for _ in range(2_048):
            context = {"message": message, "exception": OSError(24, "Too many open files")}
            asyncio.get_running_loop().call_exception_handler(context)
        await server.shutdown()

    with captured_logs() as lines:
        asyncio.run(run())

    # Then
    assert [line["event"] for line in lines] == ["connections.no_files_left"]
