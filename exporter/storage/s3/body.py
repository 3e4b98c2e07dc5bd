"""Download of a byte range; if the download breaks off, the remaining bytes are requested again."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from botocore import exceptions as boto
from botocore.response import StreamingBody

from exporter.errors import StorageUnavailable

PIECE_BYTES = 256 * 1024
MAX_EMPTY_ANSWERS = 3
"""Number of answers in a row without a single byte after which the download fails."""


def stream_range(
    open_body: Callable[[int], StreamingBody], start: int, end: int
) -> Iterator[bytes]:
    """Yields exactly the bytes `start` to `end` (exclusive), in pieces.

    `open_body(position)` must request the bytes from `position` to `end`. Its first call is made
    before this function returns, so its errors are raised at once. If later calls fail, the
    iterator raises their errors; if they repeatedly bring no bytes, it raises StorageUnavailable.
    It never ends before `end` without an error. Closing the iterator releases the connection.
    """
    return _pieces(open_body, open_body(start), start, end)


def _pieces(
    open_body: Callable[[int], StreamingBody], body: StreamingBody, at: int, end: int
) -> Iterator[bytes]:
    empty_answers = 0
    try:
        while True:
            before = at
            try:
                for piece in body.iter_chunks(PIECE_BYTES):
                    at += len(piece)
                    yield piece
                cause = "it ended"
            # Errors of botocore while a body is read: timeouts, resets, too few bytes.
            except (boto.HTTPClientError, boto.IncompleteReadError) as error:
                cause = str(error)
            if at >= end:
                return
            empty_answers = empty_answers + 1 if at == before else 0
            if empty_answers == MAX_EMPTY_ANSWERS:
                raise StorageUnavailable(f"the body broke off at byte {at} of {end}: {cause}")
            body.close()
            body = open_body(at)
    finally:
        body.close()
