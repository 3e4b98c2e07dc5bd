"""Streams answers whose body is produced in threads, piece by piece, while it is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import cast

import anyio
import structlog
from anyio import to_thread
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from exporter.api import turns
from exporter.api.errors import RETRY_AFTER_SECONDS
from exporter.api.refusal import Refusal
from exporter.api.state import service_of
from exporter.core import limits

MAX_STREAMS = limits.STREAMS.default
"""Streams that one process serves at once; each stream holds a database connection."""
MAX_READ_THREADS = 4
"""Most threads that produce pieces at once; a stream whose caller reads slowly uses no thread."""
_SEND_BYTES = 128 * 1024
"""Most bytes sent at once: about the memory that a slowly reading caller occupies."""

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class StreamLimits:
    """Limits of one process: its streams, and the threads that produce their pieces.

    Create this object before the event loop runs.
    """

    def __init__(self) -> None:
        self.streams = anyio.CapacityLimiter(MAX_STREAMS)
        self.threads = anyio.CapacityLimiter(MAX_READ_THREADS)


class Stream(Response):
    """Answer that streams a body whose length is not known when the answer starts.

    The end of the body is sent only if all of the body was produced. Nothing is sent before the
    first piece exists, so an earlier error is answered with an error status. A later error closes
    the connection before the end of the body, which every client reports as an error. Production
    stops when the caller disconnects or reads nothing for the reader timeout. Raises Refusal 503 if
    MAX_STREAMS streams are already being sent.
    """

    def __init__(
        self,
        pieces: Iterator[bytes],
        *,
        interrupt: Callable[[], None],
        headers: Mapping[str, str],
    ) -> None:
        """Stores an iterator over the pieces of the body.

        When the caller disconnects, `interrupt` is called in another thread to abort the production
        of the current piece.
        """
        super().__init__(headers=headers)
        # Starlette sets the length of an empty body here; this body has an unknown length.
        del self.headers["Content-Length"]
        self._pieces = pieces
        self._interrupt = interrupt
        self._reader_seconds = float(limits.READER_TIMEOUT.default)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        self._reader_seconds = service_of(request).settings.reader_timeout.total_seconds()
        with turns.turns_of(request).hold(request, limits.KEY_STREAMS) as is_allowed:
            if not is_allowed:
                detail = "as many exports as its plan allows are being sent to this key already"
                headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
                raise Refusal(429, "too_many_streams", f"{detail}; try again", headers=headers)
            await self._send_in_lane(request, receive, send)

    async def _send_in_lane(self, request: Request, receive: Receive, send: Send) -> None:
        lanes = cast("StreamLimits", request.app.state.lanes)
        try:
            lanes.streams.acquire_on_behalf_of_nowait(self)
        except anyio.WouldBlock:
            raise Refusal(
                503,
                "service_unavailable",
                f"{MAX_STREAMS} exports are already being sent, which is the maximum; try again",
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
                    # The server also reports a disconnect at the end of a complete answer.
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
                with anyio.move_on_after(self._reader_seconds) as patience:
                    await send({"type": "http.response.body", "body": body, "more_body": True})
                if patience.cancelled_caught:
                    log.warning("stream.stalled", seconds=self._reader_seconds)
                    raise ClientDisconnect
            # Frees the memory of this piece before the next piece is produced.
            piece = body = b""
            piece = await to_thread.run_sync(next, self._pieces, None, limiter=threads)
        await send({"type": "http.response.body", "body": b"", "more_body": False})
