"""Bodies that are made while they are sent, piece by piece, in threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import cast

import anyio
import structlog
from anyio import to_thread
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from exporter.api.errors import RETRY_AFTER_SECONDS
from exporter.api.refusal import Refusal

MAX_STREAMS = 8
"""Bodies that one process makes at once: each holds a connection to its database."""
MAX_READ_THREADS = 4
"""Of them, those for which a thread works at this moment; callers that read slowly need none."""
STALL_SECONDS = 60.0
"""How long a caller may take nothing before its connection is cut."""
_SEND_BYTES = 128 * 1024
"""Bytes given to the connection at once: about what a caller that reads slowly holds of ours."""

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class StreamLimits:
    """The streams of one process. Made before its event loop runs."""

    def __init__(self) -> None:
        self.streams = anyio.CapacityLimiter(MAX_STREAMS)
        self.threads = anyio.CapacityLimiter(MAX_READ_THREADS)


class Stream(Response):
    """Sends a body of unknown length, and ends it as HTTP demands only if all of it was made.

    Nothing is sent before the first piece is there, so what fails until then is still answered as
    an error. What fails later breaks the connection off before the body's end, which every client
    reports. A caller that leaves, or takes nothing for a minute, ends the making.
    """

    def __init__(
        self,
        pieces: Iterator[bytes],
        *,
        interrupt: Callable[[], None],
        headers: Mapping[str, str],
    ) -> None:
        """`interrupt` may be called from another thread while a piece is made."""
        super().__init__(headers=headers)
        # Of an empty body, which this is not.
        del self.headers["Content-Length"]
        self._pieces = pieces
        self._interrupt = interrupt

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        lanes = cast("StreamLimits", Request(scope).app.state.lanes)
        try:
            lanes.streams.acquire_on_behalf_of_nowait(self)
        except anyio.WouldBlock:
            raise Refusal(
                503,
                "service_unavailable",
                f"{MAX_STREAMS} exports are being sent already; try again",
                headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
            ) from None
        try:
            await self._run(lanes.threads, receive, send)
        finally:
            lanes.streams.release_on_behalf_of(self)

    async def _run(self, threads: anyio.CapacityLimiter, receive: Receive, send: Send) -> None:
        failure: Exception | None = None
        left = sent = False
        try:
            async with anyio.create_task_group() as tasks:

                async def leave() -> None:
                    nonlocal left
                    while (await receive())["type"] != "http.disconnect":
                        pass
                    # The server says so at the end of an answer, too.
                    if sent:
                        return
                    left = True
                    await to_thread.run_sync(self._interrupt)
                    tasks.cancel_scope.cancel()

                tasks.start_soon(leave)
                try:
                    await self._send_all(threads, send)
                    sent = True
                except Exception as error:  # noqa: BLE001 - raised below, outside of the group
                    failure = error
                tasks.cancel_scope.cancel()
        finally:
            close = getattr(self._pieces, "close", None)
            if close is not None:
                with anyio.CancelScope(shield=True):
                    await to_thread.run_sync(close)
        if left:
            raise ClientDisconnect
        if failure is not None:
            raise failure

    async def _send_all(self, threads: anyio.CapacityLimiter, send: Send) -> None:
        piece = await to_thread.run_sync(next, self._pieces, None, limiter=threads)
        start = {"type": "http.response.start", "status": self.status_code}
        await send({**start, "headers": self.raw_headers})
        while piece is not None:
            for begin in range(0, len(piece), _SEND_BYTES):
                body = piece[begin : begin + _SEND_BYTES]
                with anyio.move_on_after(STALL_SECONDS) as patience:
                    await send({"type": "http.response.body", "body": body, "more_body": True})
                if patience.cancelled_caught:
                    log.warning("stream.stalled", seconds=STALL_SECONDS)
                    raise ClientDisconnect
            # Not held while the next one is made.
            piece = body = b""
            piece = await to_thread.run_sync(next, self._pieces, None, limiter=threads)
        await send({"type": "http.response.body", "body": b"", "more_body": False})
