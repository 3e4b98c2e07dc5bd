"""Server-sent events: a stream of the exports that a feed reports."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import cast

import anyio
import structlog
from anyio import to_thread
from fastapi import FastAPI, Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from exporter.api import errors
from exporter.api.events.feeds import Changes, Follower
from exporter.api.refusal import Refusal
from exporter.core import limits
from exporter.errors import StoreUnavailable
from exporter.store.redis.api_keys import ApiKey

HEARTBEAT_SECONDS = 15.0
"""Longest silence of a stream; many proxies close a connection that is silent for longer."""
MAX_LIFE_SECONDS = 600.0
"""Life of a stream, after which the client connects again, to whichever process there is."""
SEND_SECONDS = 10.0
"""Time in which a caller must accept an event."""
RECONNECT_MILLIS = 3000
"""Pause before a client connects again, as the stream tells it."""
HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache, no-transform",
    # nginx would collect the events until its buffer is full.
    "X-Accel-Buffering": "no",
}

log: structlog.stdlib.BoundLogger = structlog.get_logger()
Render = Callable[[Changes], bytes]
"""Returns the events that tell of changes; empty if the caller gets none of them."""


def event(name: str, event_id: str, data: bytes) -> bytes:
    r"""Returns an event in the form of the HTML standard; `data` is JSON, which has no line break.

    >>> event("export.deleted", "7", b"{}")
    b'event: export.deleted\nid: 7\ndata: {}\n\n'
    """
    return b"event: %b\nid: %b\ndata: %b\n\n" % (name.encode(), event_id.encode(), data)


class Streams:
    """Counts the streams of a process, and ends them. Used on the event loop only."""

    def __init__(self) -> None:
        self._held = Counter[str]()
        self.closing = asyncio.Event()

    def close(self) -> None:
        """Ends all streams; their clients connect again, to another process."""
        self.closing.set()

    @contextmanager
    def hold(self, key: ApiKey) -> Iterator[None]:
        """Counts a stream of the key within the block. Raises Refusal 429 above a limit."""
        most = key.plan.limits.get(limits.KEY_EVENT_STREAMS.name, limits.KEY_EVENT_STREAMS.default)
        if most and self._held[key.id] >= cast("int", most):
            raise _too_many(f"{most} event streams are open with this key, which is the maximum")
        if self._held.total() >= limits.EVENT_STREAMS.default:
            raise _too_many("this process has as many event streams as it serves")
        self._held[key.id] += 1
        try:
            yield
        finally:
            self._held[key.id] -= 1
            if not self._held[key.id]:
                del self._held[key.id]


def _too_many(detail: str) -> Refusal:
    return Refusal(
        429,
        "too_many_event_streams",
        f"{detail}: close one, or poll instead",
        headers={"Retry-After": str(errors.RETRY_AFTER_SECONDS)},
    )


class EventStream(Response):
    """Answer that sends events until the feed is over, the client leaves, or MAX_LIFE_SECONDS.

    Raises Refusal 429, before anything is sent, above the limits of `Streams.hold`.
    """

    def __init__(
        self,
        key: ApiKey,
        follow: AbstractAsyncContextManager[Follower],
        render: Render,
        *,
        missed: Callable[[], Changes] | None = None,
    ) -> None:
        """Stores where the events come from.

        `missed` is called once in a thread, after the first reading of the feed: it returns what a
        client that comes back may have missed.
        """
        super().__init__(headers=HEADERS)
        del self.headers["Content-Length"]
        self._key, self._follow, self._render = key, follow, render
        self._missed = missed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        streams = streams_of(Request(scope))
        is_whole = False
        with streams.hold(self._key):
            async with anyio.create_task_group() as tasks:

                async def leave() -> None:
                    while (await receive())["type"] != "http.disconnect":
                        pass
                    tasks.cancel_scope.cancel()

                async def close() -> None:
                    await streams.closing.wait()
                    ending.cancel()

                tasks.start_soon(leave)
                with anyio.move_on_after(MAX_LIFE_SECONDS) as ending:
                    tasks.start_soon(close)
                    is_read = await self._send_events(send)
                # The end of the body says that nothing is wrong: the client connects again.
                is_whole = (ending.cancelled_caught or is_read) and await _send(
                    send, b"", more=False
                )
                tasks.cancel_scope.cancel()
        if not is_whole:
            raise ClientDisconnect

    async def _send_events(self, send: Send) -> bool:
        """Sends until the feed is over; False if the client reads nothing for SEND_SECONDS."""
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        if not await _send(send, b"retry: %d\n\n" % RECONNECT_MILLIS):
            return False
        async with self._follow as follower:
            silent_since = time.monotonic()
            while not follower.is_over:
                changes: Changes | None = None
                left = silent_since + HEARTBEAT_SECONDS - time.monotonic()
                with anyio.move_on_after(max(left, 0)):
                    changes = await follower.take()
                if changes is not None and self._missed is not None:
                    try:
                        before = await to_thread.run_sync(self._missed)
                    except StoreUnavailable:
                        return True  # the client comes back, and asks again
                    self._missed, changes = None, {**before, **changes}
                found = b"" if changes is None else self._render(changes)
                if found or time.monotonic() - silent_since >= HEARTBEAT_SECONDS:
                    if not await _send(send, found or b":\n\n"):
                        return False
                    silent_since = time.monotonic()
        return True


async def _send(send: Send, body: bytes, *, more: bool = True) -> bool:
    """Sends a piece of the body; False if the client does not take it within SEND_SECONDS."""
    with anyio.move_on_after(SEND_SECONDS) as patience:
        await send({"type": "http.response.body", "body": body, "more_body": more})
    if patience.cancelled_caught:
        log.warning("events.stalled", seconds=SEND_SECONDS)
    return not patience.cancelled_caught


def streams_of(request: Request) -> Streams:
    """Returns the event streams of the request's app."""
    return cast("Streams", cast("FastAPI", request.app).state.event_streams)
