"""The console on a real socket, with exports, webhooks and a source that answers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import redis

from exporter.api.app import create_app
from exporter.console.app import pages
from exporter.local.redis import RedisServer
from exporter.sources.memory import MemorySource
from tests.integration.api_server import KEYS_DATABASE, Server
from tests.integration.webhook_service import TLS, Hooked, hooked

HOSTILE = "<script>alert(1)</script>"
ROWS = [
    msgspec.Raw(json.dumps({"_id": f"{n}", "job_title": f"{HOSTILE} {n}"}).encode())
    for n in range(30)
]


class Board(MemorySource):
    """A source whose upstream publishes the values of a filter."""

    def listed_values(self) -> Mapping[str, tuple[str, ...]]:
        return {"industry": ("Welding", "Baking")}


class Browser:
    """A browser without JavaScript: keeps cookies, and fills forms with the token of their page."""

    def __init__(self, desk: Hooked, url: str) -> None:
        self.desk = desk
        self.http = httpx.Client(base_url=url, follow_redirects=True, timeout=30, verify=TLS)

    def sign_in(self, key: str, target: str = "/") -> httpx.Response:
        return self.http.post("/sign-in", data={"key": key, "next": target})

    def get(self, path: str) -> str:
        answer = self.http.get(path)
        assert answer.status_code == 200, answer.text
        return answer.text

    def post(self, path: str, **fields: Any) -> httpx.Response:
        return self.http.post(path, data={"csrf": self.token(), **fields})

    def token(self) -> str:
        found = re.search(r'name="csrf" value="([^"]+)"', self.http.get("/sources").text)
        assert found is not None
        return found[1]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server().running() as running:
        yield running


@pytest.fixture
def desk(server: Server, redis_server: RedisServer, tmp_path: Path) -> Iterator[Hooked]:
    with redis.Redis.from_url(redis_server.url.replace("/0", f"/{KEYS_DATABASE}")) as client:
        client.flushdb()
        with hooked(server, client, tmp_path) as running:
            running.engine.sources.opened["board"] = Board(
                ROWS, page_size=20, columns=("_id", "job_title")
            )
            # With a public URL of https, a browser would send its cookie to no http address.
            running.engine.settings = running.engine.settings.model_copy(
                update={"public_url": server.url}
            )
            running.app = server.app = create_app(running.engine, running.keys, pages=pages())
            running.allow()
            yield running


@pytest.fixture
def browser(server: Server, desk: Hooked) -> Iterator[Browser]:
    """A browser in which ann is signed in."""
    found = Browser(desk, server.url)
    with found.http:
        assert found.sign_in(desk.ann).url.path == "/"
        yield found


@pytest.fixture
def operator(server: Server, desk: Hooked) -> Iterator[Browser]:
    """A browser in which an operator is signed in."""
    found = Browser(desk, server.url)
    with found.http:
        found.sign_in(desk.keys.create("root", ("read", "write", "operator")))
        yield found
