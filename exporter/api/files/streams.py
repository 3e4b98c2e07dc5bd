"""Streams answers whose body is produced in threads, piece by piece, while it is sent."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

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
from exporter.core.limits import Limit

MAX_STREAMS = limits.STREAMS.default
"""Streams of rows that one process serves at once; each of them holds a database connection."""
MAX_STREAM_THREADS = 4
"""Most threads that produce pieces of rows; a stream whose caller reads slowly uses no thread."""
MAX_DOWNLOAD_THREADS = 16
"""Most threads of one process that read from S3, and so the most that block while S3 hangs."""
_SEND_BYTES = 128 * 1024
"""Most bytes sent at once: about the memory that a slowly reading caller occupies."""

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class StreamLimits:
    """Limits of one kind of streams: those of each key, those of the process, and its threads.

    Create this object before the event loop runs.
    """

    def __init__(
        self,
        kind: str,
        noun: str,
        of_key: Limit[int],
        *,
        threads: int,
        streams: float = math.inf,
    ) -> None:
        self.kind = kind
        """Word in the log event `download.stalled` and in the code `too_many_downloads`."""
        self.noun = noun
        """Plural of what is sent, in the texts of refusals."""
        self.of_key = of_key
        self.threads = anyio.CapacityLimiter(threads)
        self.streams = anyio.CapacityLimiter(streams)


def stream_limits() -> StreamLimits:
    """Returns the limits of streamed rows."""
    return StreamLimits(
        "stream",
        "exports",
        limits.KEY_STREAMS,
        threads=MAX_STREAM_THREADS,
        streams=MAX_STREAMS,
    )


def download_limits() -> StreamLimits:
    """Returns the limits of downloads of stored files."""
    return StreamLimits("download", "files", limits.KEY_DOWNLOADS, threads=MAX_DOWNLOAD_THREADS)


class Stream(Response):
    """Answer that streams a body while threads produce it.

    Nothing is sent before the first piece exists, so an earlier error is answered with an error
    status. The end of the body is sent only if all of the body was produced: a later error closes
    the connection before the end of the body, which every client reports as an error. Production
    stops, and what it holds is released, after the last byte, when the caller disconnects, or when
    the caller reads nothing for the reader timeout. Raises Refusal 429 above the limit of the key,
    and Refusal 503 above that of the process.
    """

    def __init__(
        self,
        produce: Callable[[], Iterator[bytes]],
        within: StreamLimits,
        headers: Mapping[str, str],
        *,
        status: int = 200,
        interrupt: Callable[[], None] | None = None,
    ) -> None:
        """Stores a function that returns an iterator over the pieces of the body.

        When the caller disconnects, `interrupt` is called in another thread to abort the production
        of the current piece.
        """
        super().__init__(status_code=status, headers=headers)
        if "Content-Length" not in headers:
            # Starlette sets the length of an empty body here; this body has an unknown length.
            del self.headers["Content-Length"]
        self._produce = produce
        self._limits = within
        self._interrupt = interrupt
        self._pieces: Iterator[bytes] = iter(())
        self._reader_seconds = float(limits.READER_TIMEOUT.default)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        self._reader_seconds = service_of(request).settings.reader_timeout.total_seconds()
        kind, noun = self._limits.kind, self._limits.noun
        with turns.turns_of(request).hold(request, self._limits.of_key) as is_allowed:
            if not is_allowed:
                detail = f"as many {noun} as its plan allows are being sent to this key already"
                raise self._refusal(429, f"too_many_{kind}s", detail)
            try:
                self._limits.streams.acquire_on_behalf_of_nowait(self)
            except anyio.WouldBlock:
                most = self._limits.streams.total_tokens
                detail = f"{most} {noun} are already being sent, which is the maximum"
                raise self._refusal(503, "service_unavailable", detail) from None
            try:
                await self._run(receive, send)
            finally:
                self._limits.streams.release_on_behalf_of(self)

    def _refusal(self, status: int, code: str, detail: str) -> Refusal:
        headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
        return Refusal(status, code, f"{detail}; try again", headers=headers)

    async def _run(self, receive: Receive, send: Send) -> None:
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
                    if self._interrupt is not None:
                        await to_thread.run_sync(self._interrupt)
                    tasks.cancel_scope.cancel()

                tasks.start_soon(leave)
                try:
                    await self._send_all(send)
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

    async def _send_all(self, send: Send) -> None:
        threads = self._limits.threads

        def produce() -> None:
            # Kept here at once, so that the pieces are closed if the caller leaves meanwhile.
            self._pieces = self._produce()

        await to_thread.run_sync(produce, limiter=threads)
        piece = await to_thread.run_sync(next, self._pieces, None, limiter=threads)
        start = {"type": "http.response.start", "status": self.status_code}
        await send({**start, "headers": self.raw_headers})
        while piece is not None:
            for begin in range(0, len(piece), _SEND_BYTES):
                body = piece[begin : begin + _SEND_BYTES]
                with anyio.move_on_after(self._reader_seconds) as patience:
                    await send({"type": "http.response.body", "body": body, "more_body": True})
                if patience.cancelled_caught:
                    event = f"{self._limits.kind}.stalled"
                    log.warning(event, seconds=self._reader_seconds)
                    raise ClientDisconnect
            # Frees the memory of this piece before the next piece is produced.
            piece = body = b""
            piece = await to_thread.run_sync(next, self._pieces, None, limiter=threads)
        await send({"type": "http.response.body", "body": b"", "more_body": False})
