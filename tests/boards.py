"""Serves a private board on a real socket for one test."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from exporter.board import app, database
from exporter.board.misbehavior import faults

KEY = "sk_test_board"
"""API key of the board, and its only connector token."""


def load(path: Path, postings: Iterable[dict[str, Any]]) -> None:
    """Adds postings to the board's database file."""
    lines = path.with_suffix(".jsonl")
    lines.write_text("".join(json.dumps(posting) + "\n" for posting in postings))
    database.load(path, lines)


@contextmanager
def serving(
    path: Path, fault_spec: str | None = None, *, more_keys: Sequence[str] = (), **options: Any
) -> Iterator[str]:
    """Yields the URL of a running board until the block ends; `options` are those of create_app."""
    # Without IPPROTO_TCP, asyncio does not set TCP_NODELAY and sends small answers 40 ms late.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    served = app.create_app(path, [KEY, *more_keys], fault_spec, **options)
    protocol: Any = "auto" if fault_spec is None else faults.Protocol
    config = uvicorn.Config(served, ws="none", http=protocol, log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@contextmanager
def client(
    path: Path, fault_spec: str | None = None, *, prefix: str = "", **options: Any
) -> Iterator[httpx.Client]:
    """Yields a client of a running board that sends the key and the connector token.

    All its paths begin with `prefix`.
    """
    headers = {"authorization": f"Bearer {KEY}", "x-connector-token": KEY}
    with (
        serving(path, fault_spec, **options) as url,
        httpx.Client(base_url=url + prefix, headers=headers, timeout=60) as found,
    ):
        yield found
