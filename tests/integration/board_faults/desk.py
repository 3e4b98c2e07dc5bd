"""Helpers for the tests of the board's faults: a served board, fault specs and raw responses."""

from __future__ import annotations

import socket
from typing import Any

import httpx
import msgspec

from tests.boards import KEY as KEY

ROWS = 250


def order(client: httpx.Client, spec: str) -> None:
    response = client.post("/faults", json={"spec": spec})
    assert response.status_code == 200, response.text
    assert response.json()["spec"] == spec


def done(client: httpx.Client) -> dict[str, int]:
    """Returns how often each fault or change was made, without the zero counts."""
    counts: dict[str, int] = client.get("/faults").json()["done"]
    return {name: count for name, count in counts.items() if count}


def search(client: httpx.Client, **body: Any) -> httpx.Response:
    return client.post("/v2/jobs/search", json={"limit": 100, "include_expired": "true", **body})


class Texts(msgspec.Struct):
    """Page of a search with its postings as the bytes that were sent."""

    jobs: list[msgspec.Raw]
    total_count: int
    page: int
    limit: int
    total_pages: int


def texts(response: httpx.Response) -> Texts:
    return msgspec.json.decode(response.content, type=Texts)


def rows(page: Texts) -> list[bytes]:
    return [bytes(row) for row in page.jobs]


def raw_search(client: httpx.Client) -> tuple[int, bytes, type[Exception] | None]:
    """Searches over a bare socket: the announced length, the received body, and the final error."""
    body = b'{"limit":100}'
    request = (
        f"POST /v2/jobs/search HTTP/1.1\r\nHost: board\r\nx-api-key: {KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    received, end = b"", None
    with socket.create_connection((client.base_url.host, client.base_url.port or 0), 10) as peer:
        peer.sendall(request)
        try:
            while chunk := peer.recv(65_536):
                received += chunk
        except ConnectionResetError:
            end = ConnectionResetError
    head, _, body = received.partition(b"\r\n\r\n")
    lengths = [
        int(line.partition(b":")[2])
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"content-length:")
    ]
    assert head.startswith(b"HTTP/1.1 200 "), head
    assert len(lengths) == 1
    return lengths[0], body, end
