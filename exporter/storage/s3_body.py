"""A stretch of an object as it arrives, asked for again where it breaks off."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from botocore import exceptions as boto
from botocore.response import StreamingBody

from exporter.errors import StorageUnavailable

PIECE = 256 * 1024
FRUITLESS = 3
"""Answers in a row without a single byte before the stretch is given up."""


def stretch(ask: Callable[[int], StreamingBody], start: int, end: int) -> Iterator[bytes]:
    """Exactly the bytes `start` to `end` (exclusive), in pieces.

    `ask` opens the body from a place on, up to `end`; it is called once before this returns, so
    its errors come at once. The iterator raises what later calls raise, or StorageUnavailable; it
    never ends early. Closing it gives the connection back.
    """
    return _pieces(ask, ask(start), start, end)


def _pieces(
    ask: Callable[[int], StreamingBody], body: StreamingBody, at: int, end: int
) -> Iterator[bytes]:
    fruitless = 0
    try:
        while True:
            before = at
            try:
                for piece in body.iter_chunks(PIECE):
                    at += len(piece)
                    yield piece
                cause = "it ended"
            # What botocore raises while a body is read: timeouts, resets, too few bytes.
            except (boto.HTTPClientError, boto.IncompleteReadError) as error:
                cause = str(error)
            if at >= end:
                return
            fruitless = fruitless + 1 if at == before else 0
            if fruitless == FRUITLESS:
                raise StorageUnavailable(f"the body broke off at byte {at} of {end}: {cause}")
            body.close()
            body = ask(at)
    finally:
        body.close()
