"""Runs real workers on a Redis that a test may disturb, with an upstream that counts requests."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import redis

from exporter import wiring
from exporter.config import load_config
from exporter.core.exports import Export, State
from exporter.local import ports
from exporter.local.redis import RedisServer
from exporter.maintenance.sweeper import Sweeper
from exporter.service.drafts import NewExport
from exporter.service.exports import ExportService
from exporter.settings import Settings
from exporter.store.redis.store import RedisStore
from tests.conftest import S3

PAGE_ROWS = 20
"""Rows per page of the upstream."""


def until(condition: Callable[[], object], seconds: float, what: str = "") -> float:
    """Waits until the condition is true and returns the seconds; fails after `seconds`."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < seconds, f"not within {seconds} s: {what}"
        time.sleep(0.02)
    return time.monotonic() - begin


class Upstream:
    """Upstream of job searches: `keywords: [NAME]` has rows with ids NAME-0, NAME-1 and so on."""

    def __init__(self) -> None:
        self.asked: Counter[tuple[str, int]] = Counter()
        """Number of requests for each page of each search."""
        self.asked_at: dict[str, float] = {}
        """Monotonic time of the last request of each search."""
        self.pages: dict[str, int] = {}
        self.delays: dict[str, float] = {}
        self.filler: dict[str, bytes] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                length = int(self.headers["content-length"])
                body = outer._answer(json.loads(self.rfile.read(length)))
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def _answer(self, asked: dict[str, Any]) -> bytes:
        name, page, size = asked["keywords"][0], asked["page"], asked["limit"]
        self.asked[name, page] += 1
        self.asked_at[name] = time.monotonic()
        time.sleep(self.delays[name])
        total = self.pages[name] * PAGE_ROWS
        rows = [
            b'{"_id":"%s-%d","description":"%s"}' % (name.encode(), n, self.filler[name])
            for n in range((page - 1) * size, min(page * size, total))
        ]
        return b'{"jobs":[%s],"total_count":%d,"page":%d,"limit":%d}' % (
            b",".join(rows),
            total,
            page,
            size,
        )

    def twice(self, *prefixes: str) -> dict[tuple[str, int], int]:
        """Returns the pages requested more than once, of searches with one of these prefixes."""
        return {
            (name, page): times
            for (name, page), times in self.asked.items()
            if times > 1 and name.startswith(prefixes or "")
        }

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Worker:
    """A worker process with its children, in its own process group."""

    def __init__(
        self, fleet: Fleet, name: str, slots: int, patch: str, env: dict[str, str]
    ) -> None:
        self._fleet = fleet
        self.path = fleet.directory / f"{name}.log"
        # A patch from the test runs first, for example to shorten a constant or block a thread.
        run = f"{patch}\nfrom workers.__main__ import main\nmain()"
        with self.path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", run, "worker", str(slots)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=fleet.env | env,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def ready(self) -> bool:
        assert self.alive, f"the worker ended with {self.process.poll()}:\n{self.text()[-3000:]}"
        return bool(
            self._fleet.store.client.exists(
                f"{{exporter}}:workers:{socket.gethostname()}:{self.pid}"
            )
        )

    def terminate(self) -> float:
        """Sends SIGTERM and returns the seconds until the worker ends; fails unless with code 0."""
        begin = time.monotonic()
        self.process.terminate()
        code = self.process.wait(60)
        assert code == 0, f"{code}:\n{self.text()[-3000:]}"
        return time.monotonic() - begin

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()

    def text(self) -> str:
        return self.path.read_text("utf-8", errors="replace")

    def log_lines(self, action: str) -> list[dict[str, Any]]:
        """Returns the worker's log lines with this action."""
        lines = [json.loads(line) for line in self.text().splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("action") == action]


class Fleet:
    """Redis, S3, an upstream and an ExportService; the test adds the workers."""

    def __init__(
        self,
        directory: Path,
        s3: S3,
        *,
        redis_through: Callable[[int], str] | None = None,
        broker_through: Callable[[int], str] | None = None,
        **variables: str,
    ) -> None:
        self.directory = directory
        self.upstream = Upstream()
        port = ports.find_free(1)[0]
        self.redis = RedisServer(directory, port)
        self.broker_url = f"redis://127.0.0.1:{port}/1"
        config = directory / "exporter.toml"
        config.write_text(
            f'[sources.up]\ntype = "hirebase"\nbase_url = "{self.upstream.url}"\n'
            # One request at a time, so that a test controls the duration of an export.
            f"page_size = {PAGE_ROWS}\nmax_in_flight = 1\n"
        )
        redis_url = redis_through(port) if redis_through else self.redis.url
        self.env = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("EXPORTER_", "AWS_"))
        } | {
            "EXPORTER_CONFIG": str(config),
            "EXPORTER_REDIS_URL": redis_url,
            "EXPORTER_BROKER_URL": broker_through(port) if broker_through else self.broker_url,
            "EXPORTER_S3_ENDPOINT_URL": s3.endpoint_url,
            "EXPORTER_S3_BUCKET": s3.bucket,
            "EXPORTER_LEASE_SECONDS": "4s",
            "EXPORTER_SLICE_SECONDS": "2s",
            "AWS_ACCESS_KEY_ID": s3.access_key,
            "AWS_SECRET_ACCESS_KEY": s3.secret_key,
            "NO_PROXY": "127.0.0.1",
            **{f"EXPORTER_{name}": value for name, value in variables.items()},
        }
        self.store = RedisStore.connect(self.redis.url)
        with mock.patch.dict(os.environ, self.env, clear=True):
            settings = Settings()
            self.storage = wiring.storage(settings)
            self.storage.check()  # reads the credentials while they are in the environment
        self.engine = ExportService(
            settings=settings, config=load_config(config), store=self.store, storage=self.storage
        )
        self._workers: list[Worker] = []
        self._sweeper = Sweeper(self.store, interval=1.0)

    def worker(self, slots: int = 2, *, patch: str = "", wait: bool = True, **env: str) -> Worker:
        """Starts a worker, and waits until it is ready unless `wait` is false."""
        one = Worker(self, f"worker-{len(self._workers)}", slots, patch, env)
        self._workers.append(one)
        if wait:
            until(one.ready, 30, "a worker with a presence key")
        return one

    def create(self, name: str, pages: int, *, delay: float = 0.05, filler: bytes = b"") -> str:
        """Creates an export of `pages` pages with `delay` seconds each, and returns its id."""
        self.upstream.pages[name] = pages
        self.upstream.delays[name] = delay
        self.upstream.filler[name] = filler
        search = {"keywords": [name]}
        new = NewExport(user_id="ann", surface="native", source="up", search=search)
        return self.engine.create(new).id

    def record(self, export_id: str) -> Export:
        export = self.store.get(export_id)
        assert export is not None
        return export

    def ended(self, export_ids: Sequence[str]) -> bool:
        return all(self.record(one).terminal for one in export_ids)

    def file(self, export_id: str) -> bytes:
        """Returns the published file, downloaded by its link."""
        export = self.record(export_id)
        assert export.state is State.FINISHED, f"{export.state}: {export.error}"
        assert export.result is not None
        link = self.engine.link(export)
        assert link is not None
        return httpx.get(link[0]).raise_for_status().content

    def ids(self, export_id: str) -> list[str]:
        """Returns the row ids of the published file, in order."""
        return [json.loads(line)["_id"] for line in self.file(export_id).splitlines()]

    def assert_whole(self, exports: dict[str, str]) -> None:
        """Asserts that each export, by search name, contains every row once and in order."""
        for name, export_id in exports.items():
            expected = [f"{name}-{n}" for n in range(self.upstream.pages[name] * PAGE_ROWS)]
            assert self.ids(export_id) == expected, name

    def start(self) -> None:
        self.redis.start()
        self._sweeper.start()

    def close(self) -> None:
        self._sweeper.stop()
        for worker in self._workers:
            worker.kill()
        self._sweeper.join()
        self.store.client.close()
        self.redis.stop()
        self.upstream.close()


@contextmanager
def running(directory: Path, s3: S3, **options: Any) -> Iterator[Fleet]:
    """Runs a fleet without workers until the block ends."""
    fleet = Fleet(directory, s3, **options)
    try:
        fleet.start()
        yield fleet
    finally:
        fleet.close()


class Proxy:
    """TCP proxy that can drop all data without closing connections, like a lost network route."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._dropped: set[socket.socket] = set()
        self._live: set[socket.socket] = set()
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.accepting = True
        """False to accept new connections without connecting them to the target."""
        threading.Thread(target=self._accept, daemon=True).start()

    def drop(self) -> int:
        """Drops all further data on the open connections; returns the number of dropped ones."""
        self._dropped |= self._live
        return len(self._dropped)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            self._open.append(client)
            if not self.accepting:
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                client.close()
                continue
            self._open.append(server)
            self._live.add(client)
            for source, sink in ((client, server), (server, client)):
                threading.Thread(
                    target=self._pump, args=(client, source, sink), daemon=True
                ).start()

    def _pump(self, client: socket.socket, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if client not in self._dropped:
                    sink.sendall(data)
        self._live.discard(client)
        if client not in self._dropped:
            for one in (source, sink):
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)


@contextmanager
def raw(url: str) -> Iterator[redis.Redis]:
    """Yields a plain client of a Redis database."""
    with redis.Redis.from_url(url) as client:
        yield client
