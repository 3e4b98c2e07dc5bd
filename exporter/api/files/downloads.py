"""Serves stored files through the API, whole or in byte ranges."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

import anyio
import structlog
from anyio import to_thread
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from exporter.api import turns
from exporter.api.edge import is_head
from exporter.api.errors import RETRY_AFTER_SECONDS
from exporter.api.refusal import Refusal
from exporter.api.state import service_of
from exporter.core import limits
from exporter.storage.base import FileHeaders, Storage

MAX_READ_THREADS = 16
"""Most threads of one process that read from S3, and so the most that block while S3 hangs."""

_RANGE = re.compile(r"bytes=(?:([0-9]{1,18})-([0-9]{0,18})|-([0-9]{1,18}))", re.IGNORECASE)

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class ServedFile(NamedTuple):
    """A byte range of a stored object that callers download as a file of its own."""

    name: str
    key: str
    start: int
    size: int
    content_type: str
    tag: str
    """ETag without quotes: different for any two files, constant for one file."""


def serve(request: Request, storage: Storage, stretch: ServedFile) -> Response:
    """Returns the answer to a GET or HEAD of a file: 200, 206 for a range, 304 if unchanged.

    Raises Refusal 416 if the file has none of the bytes of the requested range. The answer has no
    Content-Encoding, so clients save a compressed file compressed. Only a single range is served.
    For several ranges or a malformed range the whole file is sent, which RFC 9110 allows. The whole
    file is also sent if `If-Range` does not match.
    """
    tag = f'"{stretch.tag}"'
    headers = {
        "ETag": tag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-transform",
    }
    known = request.headers.get("if-none-match", "")
    if known.strip() == "*" or tag in (one.strip().removeprefix("W/") for one in known.split(",")):
        return Response(status_code=304, headers=headers)
    wanted = None
    if not is_head(request) and request.headers.get("if-range", tag).strip() == tag:
        wanted = _range(request.headers.get("range", ""), stretch.size)
    status = 200
    if wanted is None:
        wanted = range(stretch.size)
    else:
        status = 206
        headers["Content-Range"] = f"bytes {wanted.start}-{wanted.stop - 1}/{stretch.size}"
    headers |= {
        "Content-Type": stretch.content_type,
        "Content-Disposition": FileHeaders(stretch.content_type, stretch.name).disposition,
        "Content-Length": str(len(wanted)),
    }
    if is_head(request):
        return Response(status_code=status, headers=headers)
    begin, end = stretch.start + wanted.start, stretch.start + wanted.stop
    return _Streamed(partial(storage.stream, stretch.key, begin, end), status, headers)


def _range(header: str, size: int) -> range | None:
    """Returns the byte range that a Range header requests from a file of `size` bytes.

    Returns None if the header is empty or malformed, or requests several ranges. Raises Refusal 416
    if the file has none of the requested bytes.
    """
    found = _RANGE.fullmatch(header.replace(" ", ""))
    if found is None:
        return None
    first, last, length = found.groups()
    if length is not None:
        wanted = range(max(size - int(length), 0), size)
    else:
        stop = int(last) + 1 if last else size
        if stop <= int(first) and last:
            return None
        wanted = range(int(first), min(stop, size))
    if not wanted:
        raise Refusal(
            416,
            "range_not_satisfiable",
            f"the file has {size} bytes, and the range {header[:100]!r} contains none of them",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return wanted


class _Streamed(Response):
    """Answer that streams a file from S3 in pieces, and starts only after S3 has answered.

    A failure of S3 before the first piece can therefore still be answered with an error status. A
    later error leaves the answer shorter than its Content-Length, so that clients detect the
    incomplete file. The connection to S3 is released after the last byte, when the caller
    disconnects, or when the caller reads nothing for the reader timeout.
    """

    def __init__(
        self, ask: Callable[[], Iterator[bytes]], status: int, headers: Mapping[str, str]
    ) -> None:
        super().__init__(status_code=status, headers=headers)
        self._ask = ask
        self._reader_seconds = float(limits.READER_TIMEOUT.default)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        self._reader_seconds = service_of(request).settings.reader_timeout.total_seconds()
        with turns.turns_of(request).hold(request, limits.KEY_DOWNLOADS) as is_allowed:
            if not is_allowed:
                detail = "as many files as its plan allows are being sent to this key already"
                headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
                raise Refusal(429, "too_many_downloads", f"{detail}; try again", headers=headers)
            await self._run(request.app.state.downloads, receive, send)

    async def _run(self, limiter: anyio.CapacityLimiter, receive: Receive, send: Send) -> None:
        pieces = await to_thread.run_sync(self._ask, limiter=limiter)
        failure: Exception | None = None
        try:
            async with anyio.create_task_group() as tasks:

                async def leave() -> None:
                    while (await receive())["type"] != "http.disconnect":
                        pass
                    tasks.cancel_scope.cancel()

                tasks.start_soon(leave)
                try:
                    await self._send_all(pieces, send, limiter)
                except Exception as error:  # noqa: BLE001 - raised below, outside of the group
                    failure = error
                tasks.cancel_scope.cancel()
        finally:
            close = getattr(pieces, "close", None)
            if close is not None:
                with anyio.CancelScope(shield=True):
                    await to_thread.run_sync(close, limiter=limiter)
        if failure is not None:
            raise failure

    async def _send_all(
        self, pieces: Iterator[bytes], send: Send, limiter: anyio.CapacityLimiter
    ) -> None:
        start = {"type": "http.response.start", "status": self.status_code}
        await send({**start, "headers": self.raw_headers})
        more = True
        while more:
            piece = await to_thread.run_sync(next, pieces, None, limiter=limiter)
            more = piece is not None
            message = {"type": "http.response.body", "body": piece or b"", "more_body": more}
            with anyio.move_on_after(self._reader_seconds) as patience:
                await send(message)
            if patience.cancelled_caught:
                log.warning("download.stalled", seconds=self._reader_seconds)
                raise ClientDisconnect
