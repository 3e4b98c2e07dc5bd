"""The calls of a format that make a file, as bytes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import msgspec

from exporter.core.buffers import Buffer
from exporter.core.checkpoints import Packed, Row, RowCounts
from exporter.formats.base import Format, State


def opened(fmt: Format) -> bytes:
    out = Buffer()
    fmt.open(fmt.state_type(), out)
    return bytes(out)


def encode(
    fmt: Format, rows: Sequence[Row], row_counts: RowCounts | None = None, written: int = 0
) -> bytes:
    """Returns the bytes of rows after the first `written` rows of a file."""
    out, state = Buffer(), fmt.state_type(written)
    fmt.encode(rows, RowCounts() if row_counts is None else row_counts, state, out)
    fmt.pause(state, out)
    return bytes(out)


def file_of(
    fmt: Format, pages: Iterable[Sequence[Row]], row_counts: RowCounts | None = None
) -> bytes:
    return spread([fmt], pages, row_counts)


def spread(
    workers: Sequence[Format], pages: Iterable[Sequence[Row]], row_counts: RowCounts | None = None
) -> bytes:
    """Returns the file if each page is encoded by the next of these workers in turn."""
    out, turns = Buffer(), itertools.cycle(workers)
    state = workers[0].state_type()
    next(turns).open(state, out)
    state = append(turns, pages, state, out, row_counts)
    next(turns).close(state, out)
    return bytes(out)


def append(
    workers: Iterable[Format],
    pages: Iterable[Sequence[Row]],
    state: State,
    out: Buffer,
    row_counts: RowCounts | None = None,
) -> State:
    """Appends each page by another worker, which knows only the checkpoint of the one before."""
    row_counts = RowCounts() if row_counts is None else row_counts
    for fmt, page in zip(workers, pages, strict=False):
        fmt.encode(page, row_counts, state, out)
        state.rows += len(page)
        fmt.pause(state, out)
        kept = msgspec.json.encode(Packed(is_open=True, rows=state.rows, state=state.dump()))
        state = fmt.state_type.load(msgspec.json.decode(kept, type=Packed))
    return state
