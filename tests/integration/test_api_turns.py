"""One key may neither occupy all threads nor make the API read for callers that have left."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from exporter.core import limits
from tests.integration.api_server import Service

EXPORT = {"source": "board", "query": {}, "format": "csv"}


def create(api: Service) -> str:
    return str(api.http.post("/v1/exports", json=EXPORT).raise_for_status().json()["id"])


@contextmanager
def asking(api: Service, path: str, count: int) -> Iterator[list[socket.socket]]:
    """Sends so many requests of the first user, without reading their answers."""
    ask = f"GET {path} HTTP/1.1\r\nx-api-key: {api.ann}\r\n\r\n".encode()
    with ExitStack() as opened:
        address = (api.http.base_url.host, api.http.base_url.port or 80)
        clients = [socket.create_connection(address, timeout=30) for _ in range(count)]
        for client in clients:
            opened.enter_context(client)
            client.sendall(ask)
        yield clients


def test_a_key_with_many_slow_requests_leaves_threads_for_others(
    api: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given: lists that take until `go_on`, and far more of them than there are threads
    whole, go_on = api.engine.store.list, threading.Event()

    def slow(user_id: str, **options: Any) -> Any:
        assert user_id == "bob" or go_on.wait(20)
        return whole(user_id, **options)

    monkeypatch.setattr(api.engine.store, "list", slow)
    with asking(api, "/v1/exports", 60) as clients:
        time.sleep(1)

        # When
        begun = time.monotonic()
        other = api.http.get("/v1/exports", headers={"X-API-Key": api.bob})
        seconds = time.monotonic() - begun
        go_on.set()

        # Then
        assert other.status_code == 200
        assert seconds < 1
        assert {client.recv(12) for client in clients} == {b"HTTP/1.1 200"}


def test_polls_that_wait_share_one_look_and_end_with_their_callers(
    api: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    export_id, looks = create(api), 0
    whole = api.engine.store.show

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal looks
        looks += 1
        return whole(*arguments, **options)

    monkeypatch.setattr(api.engine.store, "show", counted)

    # When: polls wait for two seconds, and their callers leave
    with asking(api, f"/v1/exports/{export_id}?wait=30", limits.WAITING_POLLS.default) as clients:
        time.sleep(2)
        while_waiting = looks
    time.sleep(1.5)
    after, looks = looks, 0
    time.sleep(1.5)

    # Then: one look of each poll, and two a second for all of them
    assert while_waiting <= len(clients) + 5
    assert after <= while_waiting + 3
    assert looks == 0


def test_one_waiting_poll_too_many_is_answered_at_once(api: Service) -> None:
    # Given
    export_id = create(api)
    path = f"/v1/exports/{export_id}?wait=20"
    with asking(api, path, limits.WAITING_POLLS.default):
        time.sleep(1)

        # When
        begun = time.monotonic()
        answer = api.http.get(path)
        seconds = time.monotonic() - begun

    # Then
    assert (answer.status_code, answer.json()["state"]) == (200, "queued")
    assert "Retry-After" in answer.headers
    assert seconds < 1


def test_a_waiting_poll_ends_with_its_export(api: Service) -> None:
    # Given
    export_id = create(api)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(api.http.get, f"/v1/exports/{export_id}?wait=20", timeout=30)
        time.sleep(0.7)

        # When
        begun = time.monotonic()
        api.finish(export_id)

        # Then
        assert waiting.result().json()["state"] == "finished"
        assert time.monotonic() - begun < 2
