"""Bounds what one connection may cost: bytes of a head, time, buffered answers, open files.

The bounds hold without a proxy. A client that exceeds one is answered 400, 408, 431 or 503 in plain
text if nothing was answered yet, and its connection is closed. No request is logged by itself:
each kind of refusal writes at most one log line a minute.
"""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import httptools
import structlog
import uvicorn
from starlette.types import ASGIApp
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from exporter.core import limits
from exporter.settings import Settings

MAX_HEAD_BYTES = limits.HEAD_BYTES.default
"""Longest head of a request. The same bound holds for chunk extensions and trailers."""
MAX_PIPELINED_REQUESTS = limits.PIPELINED_REQUESTS.default
"""Requests that a client may send before the first of them is answered."""
BODY_STEP_BYTES = 1024 * 1024
"""Part of a body that must arrive within the body timeout."""
LINGER_SECONDS = 5.0
"""Time to receive the rest of a body that was refused, so that the client can read the answer."""
MAX_LINGER_BYTES = 16 * 1024 * 1024
"""Bytes of a refused body that are received and thrown away."""
MAX_BUFFERED_BYTES = limits.BUFFERED_BYTES.default
"""Bytes of answers that clients have not read yet, of the whole process.

Beyond it, the connection whose client has not read for the longest time is closed.
"""
MAX_UNSENT_BYTES = 128 * 1024
"""Bytes of an answer that the kernel queues for a client that does not read."""
MAX_FILES = 65_536
"""Open files that the process asks for at its start, if its hard limit allows them."""
RESERVED_FILES = 256
"""Open files kept for Redis, S3 and databases."""
MAX_BACKLOG = 2_048
"""Connections that the kernel queues, and that are accepted at once."""
NOTICE_SECONDS = 60.0
"""Time between two log lines about the same kind of refusal."""
RETRY_AFTER_SECONDS = 5

log: structlog.stdlib.BoundLogger = structlog.get_logger()


@dataclass(frozen=True)
class Bounds:
    """The bounds of a process that depend on its settings."""

    connections: int
    backlog: int
    head_seconds: float
    body_seconds: float
    reader_seconds: float


def bounds(settings: Settings) -> Bounds:
    """Returns the bounds of this process, after raising its limit of open files."""
    files = _raise_file_limit()
    backlog = min(MAX_BACKLOG, max(files // 8, 16))
    fitting = max(files - RESERVED_FILES - backlog, 16)
    return Bounds(
        connections=min(settings.max_connections, fitting),
        backlog=backlog,
        head_seconds=settings.head_timeout.total_seconds(),
        body_seconds=settings.body_timeout.total_seconds(),
        reader_seconds=settings.reader_timeout.total_seconds(),
    )


def _raise_file_limit() -> int:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return MAX_FILES if soft == resource.RLIM_INFINITY else soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def server(app: ASGIApp, allowed: Bounds, **options: Any) -> Server:
    """Returns a server of the app whose connections keep the bounds."""
    protocol = cast("type[asyncio.Protocol]", partial(Connection, _Table(allowed)))
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        access_log=False,
        proxy_headers=False,  # nothing reads the client's address or scheme
        backlog=allowed.backlog,
        **options,
    )
    return Server(config)


class Server(uvicorn.Server):
    """Server of one process."""

    on_exit: Callable[[], None] | None = None
    """Called on the event loop before the server waits for the answers in progress."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self.on_exit is not None:
            self.on_exit()
        await super().shutdown(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        loop, full = asyncio.get_running_loop(), _Notice("connections.no_files_left")

        def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            # asyncio reports each failed accept with a traceback, thousands of times a second.
            if context["message"] == "socket.accept() out of system resource":
                full.add(loop.time(), reason=str(context.get("exception")))
            else:
                loop.default_exception_handler(context)

        loop.set_exception_handler(handle)
        await super().startup(sockets)


class _Notice:
    """Counts events of one kind and logs them at most once a minute."""

    def __init__(self, event: str) -> None:
        self._event = event
        self._count = 0
        self._next = float("-inf")

    def add(self, now: float, **facts: Any) -> None:
        self._count += 1
        if now >= self._next:
            log.warning(self._event, count=self._count, **facts)
            self._count, self._next = 0, now + NOTICE_SECONDS


class _Table:
    """All connections of a process that wait for their client, by the kind of wait.

    Each wait has a constant timeout, so each table is ordered by time, and the timer of a process
    looks only at connections whose time is over.
    """

    def __init__(self, allowed: Bounds) -> None:
        self.bounds = allowed
        self.heads: dict[Connection, float] = {}
        """Connections without a complete head of the next request, idle ones included."""
        self.bodies: dict[Connection, float] = {}
        self.lingering: dict[Connection, float] = {}
        """Connections that send the rest of a body that was already refused."""
        self.unread: dict[Connection, float] = {}
        """Connections with an answer that the client has not read."""
        self.buffered_bytes = 0
        self.full = _Notice("connections.full")
        self.late = _Notice("connections.late")
        self.slow_readers = _Notice("connections.slow_readers")
        self.malformed = _Notice("connections.malformed")
        self._timer: asyncio.TimerHandle | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Starts the timer of the process with the first connection."""
        if self._timer is None:
            self._timer = loop.call_later(1.0, self._check, loop)

    def forget(self, connection: Connection) -> None:
        """Removes a closed connection."""
        for waiting in (self.heads, self.bodies, self.lingering, self.unread):
            waiting.pop(connection, None)

    def make_room(self, connection: Connection, now: float) -> bool:
        """Closes the connection that has waited longest for a head; False without another one."""
        oldest = next(iter(self.heads), connection)
        self.full.add(now, limit=self.bounds.connections)
        if oldest is connection:
            return False
        oldest.transport.abort()
        self.forget(oldest)
        return True

    def bound_buffers(self, now: float) -> None:
        """Closes the connections that have not read for the longest time, above the maximum."""
        while self.buffered_bytes > MAX_BUFFERED_BYTES and self.unread:
            self.cut_off(next(iter(self.unread)), now)

    def cut_off(self, connection: Connection, now: float) -> None:
        """Closes a connection whose client does not read."""
        connection.end_unread()
        connection.transport.abort()
        self.slow_readers.add(now, seconds=self.bounds.reader_seconds)

    def _check(self, loop: asyncio.AbstractEventLoop) -> None:
        now, allowed = loop.time(), self.bounds
        _expire(self.heads, now - allowed.head_seconds, lambda one: one.end_head(now))
        _expire(self.bodies, now - allowed.body_seconds, lambda one: one.end_body(now))
        _expire(self.lingering, now - LINGER_SECONDS, lambda one: one.transport.close())
        _expire(self.unread, now - allowed.reader_seconds, lambda one: self.cut_off(one, now))
        self._timer = loop.call_later(1.0, self._check, loop)


def _expire(
    waiting: dict[Connection, float], since: float, end: Callable[[Connection], object]
) -> None:
    while waiting:
        oldest, began = next(iter(waiting.items()))
        if began > since:
            return
        del waiting[oldest]
        end(oldest)


class _Answer:
    """The transport of an answer, which sends the head and the first bytes after it in one write.

    A write takes the kernel as long as many lines of Python. The head is not held back any longer
    than until the event loop has run what is ready now.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._has_begun = False
        self._head = b""
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        if not self._has_begun:
            self._has_begun = True
            self._head = data
            self._loop.call_soon(self.flush)
        elif self._head:
            head, self._head = self._head, b""
            self._transport.write(head + data)
        else:
            self._transport.write(data)

    def flush(self) -> None:
        """Writes the head if it was not yet written."""
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)

    def close(self) -> None:
        self.flush()
        self._transport.close()


class Connection(HttpToolsProtocol):
    """A connection of a client, within the bounds."""

    def __init__(self, table: _Table, **options: Any) -> None:
        super().__init__(**options)
        self._table = table
        self._quiet_bytes = 0
        """Bytes since the last complete head or the last byte of a body."""
        self._step_bytes = 0
        self._unread_bytes = 0
        self._in_body = False
        self._running: RequestResponseCycle | None = None
        self._answer: _Answer | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        table, now = self._table, self.loop.time()
        # Any byte that the client has not taken counts as unread, and its time is measured.
        transport.set_write_buffer_limits(high=0)
        if peer := transport.get_extra_info("socket"):
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MAX_UNSENT_BYTES)
        table.start(self.loop)
        table.heads[self] = now
        if len(self.connections) > table.bounds.connections and not table.make_room(self, now):
            self._refuse(503, f"all {table.bounds.connections} connections are in use; try again")

    def connection_lost(self, exc: Exception | None) -> None:
        self.end_unread()
        self._table.forget(self)
        super().connection_lost(exc)
        if self._running is not None:
            # uvicorn notifies only the last of several pipelined requests.
            _disconnect(self._running)
        self.pipeline.clear()

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        while data and not self.transport.is_closing():
            room = MAX_HEAD_BYTES - self._quiet_bytes
            if room <= 0:
                self._refuse(431, f"the head of the request is over {MAX_HEAD_BYTES} bytes")
                return
            piece, data = data[:room], data[room:]
            # Counted before it is parsed; the parser's callbacks start again from 0.
            self._quiet_bytes += len(piece)
            try:
                self.parser.feed_data(piece)
            except httptools.HttpParserUpgrade:
                return  # answered like any other request
            except httptools.HttpParserError:
                self._table.malformed.add(self.loop.time())
                self._refuse(400, "the request is not valid HTTP")
                return

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= MAX_PIPELINED_REQUESTS:
            raise ValueError("too many requests before the first answer")
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_body:  # trailers are ignored
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._quiet_bytes = self._step_bytes = 0
        self._in_body = True
        self._table.heads.pop(self, None)
        super().on_headers_complete()
        self._table.bodies[self] = self.loop.time()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        self._answer = _Answer(self.transport, self.loop)
        cycle.transport = cast("asyncio.Transport", self._answer)
        super()._start_asgi_task(cycle, app)

    def on_body(self, body: bytes) -> None:
        self._quiet_bytes = 0
        self._step_bytes += len(body)
        if self in self._table.lingering:
            if self._step_bytes > MAX_LINGER_BYTES:
                self.transport.close()
        elif self._step_bytes >= BODY_STEP_BYTES:
            self._restart_body()
        super().on_body(body)

    def _restart_body(self) -> None:
        self._step_bytes = 0
        self._table.bodies.pop(self, None)
        self._table.bodies[self] = self.loop.time()

    def on_message_complete(self) -> None:
        self._quiet_bytes = 0
        self._in_body = False
        self._table.bodies.pop(self, None)
        super().on_message_complete()
        if self._table.lingering.pop(self, None):
            self._wait_for_head()

    def on_response_complete(self) -> None:
        if self._answer is not None:
            self._answer.flush()
        super().on_response_complete()
        if self.transport.is_closing() or not self.cycle.response_complete:
            return
        if self._in_body:
            self._table.bodies.pop(self, None)
            self._table.lingering[self] = self.loop.time()
            self._step_bytes = 0
        else:
            self._wait_for_head()

    def _wait_for_head(self) -> None:
        self._table.heads.pop(self, None)
        self._table.heads[self] = self.loop.time()

    def pause_writing(self) -> None:
        super().pause_writing()
        table, now = self._table, self.loop.time()
        self._unread_bytes = self.transport.get_write_buffer_size()
        table.unread[self] = now
        table.buffered_bytes += self._unread_bytes
        table.bound_buffers(now)

    def resume_writing(self) -> None:
        self.end_unread()
        super().resume_writing()

    def end_unread(self) -> None:
        """Ends the wait for the client to read."""
        self._table.unread.pop(self, None)
        self._table.buffered_bytes -= self._unread_bytes
        self._unread_bytes = 0

    def end_head(self, now: float) -> None:
        """Closes the connection, whose head did not arrive in time."""
        if self._quiet_bytes == 0:
            self.transport.close()  # an unused connection needs no answer
            return
        self._table.late.add(now)
        seconds = self._table.bounds.head_seconds
        self._refuse(408, f"the head of the request did not arrive within {seconds:g} s")

    def end_body(self, now: float) -> None:
        """Closes the connection, whose body did not arrive in time.

        The time starts again while the service itself does not read the body.
        """
        if self.flow.read_paused:
            self._restart_body()
            return
        self._table.late.add(now)
        seconds = self._table.bounds.body_seconds
        self._refuse(408, f"a megabyte of the body did not arrive within {seconds:g} s")

    def _refuse(self, status: int, detail: str) -> None:
        """Answers if no other answer is under way, and closes the connection."""
        running = self._running
        if running is not None and not running.response_complete:
            if running.response_started:
                self.transport.abort()
                return
            _disconnect(running)
        text = detail.encode()
        lines = [STATUS_LINE[status], b"content-type: text/plain; charset=utf-8\r\n"]
        if status == 503:
            lines.append(b"retry-after: %d\r\n" % RETRY_AFTER_SECONDS)
        lines.append(b"content-length: %d\r\nconnection: close\r\n\r\n" % len(text))
        self.transport.write(b"".join([*lines, text]))
        self.transport.close()


def _disconnect(cycle: RequestResponseCycle) -> None:
    """Reports to the app that the client of this request has disconnected."""
    if not cycle.response_complete:
        cycle.disconnected = True
    cycle.message_event.set()
