"""Writing of cut rows by the library."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from exporter.core.buffers import Buffer
from exporter.core.checkpoints import RowCounts
from exporter.native import library
from exporter.native.pages import Page, Rows

STEP_BYTES = 1024 * 1024
"""Size of the rows of a large page that are written at a time.

A row may become several times as long, and the buffer needs room for that.
"""
Odd = Callable[[int], None]
"""Appends the bytes of one row, given its index, for the library."""


class _Plan:
    """The columns of a file in the memory of the library."""

    def __init__(
        self,
        native: ctypes.CDLL,
        columns: Sequence[str],
        heads: Sequence[bytes],
        *,
        guard: bool,
        joined: bool,
    ) -> None:
        slots = {name: place for place, name in enumerate(dict.fromkeys(columns))}
        self.names = list(slots)
        self._native = native
        numbers = array("I", [slots[name] for name in columns])
        names = [name.encode("utf-8", "surrogatepass") for name in slots]
        heads = heads or [b""] * len(names)
        ends, head_ends = _ends(names), _ends(heads)
        self.address = native.plan_make(
            len(columns),
            numbers.buffer_info()[0],
            len(names),
            b"".join(names),
            ends.buffer_info()[0],
            b"".join(heads),
            head_ends.buffer_info()[0],
            guard,
            joined,
        )
        if not self.address:
            raise MemoryError

    def __del__(self) -> None:
        self._native.plan_free(getattr(self, "address", None))


def _ends(parts: Sequence[bytes]) -> array[int]:
    ends, end = array("I"), 0
    for part in parts:
        end += len(part)
        ends.append(end)
    return ends


class Writer:
    """Appends cut rows to a buffer, as one format writes them."""

    def __init__(
        self,
        columns: Sequence[str],
        *,
        heads: Sequence[bytes] = (),
        guard: bool = False,
        joined: bool = False,
    ) -> None:
        """Makes a writer for these columns, which may be none for JSON Lines.

        `heads` are the names of the different columns as JSON Lines have them, with a colon.
        """
        self._native, _ = library.find()
        self._plan = (
            _Plan(self._native, columns, heads, guard=guard, joined=joined)
            if columns and self._native is not None
            else None
        )
        self._report = library.Report()

    def write_csv(self, rows: Rows, out: Buffer, counts: RowCounts, odd: Odd) -> Fields:
        """Appends the CSV lines of the rows; see `_write`."""
        native = rows.page.native
        assert self._plan is not None
        plan = self._plan.address

        def room(start: int, stop: int) -> int:
            return int(native.csv_room(rows.page.pointer, plan, start, stop))

        def call(start: int, stop: int, *output: Any) -> int:
            return int(native.csv_write(rows.page.pointer, plan, start, stop, *output))

        return self._write(rows, out, counts, odd, room, call)

    def write_json(
        self, rows: Rows, out: Buffer, counts: RowCounts, odd: Odd, after: bytes
    ) -> Fields:
        """Appends the rows as JSON, each on one line and followed by `after`; see `_write`."""
        native = rows.page.native
        plan = None if self._plan is None else self._plan.address
        size = len(after)

        def room(start: int, stop: int) -> int:
            return int(native.json_room(rows.page.pointer, plan, start, stop, size))

        def call(start: int, stop: int, *output: Any) -> int:
            return int(
                native.json_write(rows.page.pointer, plan, start, stop, after, size, *output)
            )

        return self._write(rows, out, counts, odd, room, call)

    def _write(
        self,
        rows: Rows,
        out: Buffer,
        counts: RowCounts,
        odd: Odd,
        room: Callable[[int, int], int],
        call: Callable[..., int],
    ) -> Fields:
        """Appends the rows; calls `odd` with the index of each row that the library cannot write.

        Adds the guarded cells and replaced characters to `counts`. If `odd` raises an error,
        nothing is appended.
        """
        fields = Fields(rows.page, self._plan.names if self._plan else ())
        report, begin, index = self._report, len(out), 0
        step = rows.page.cut.row_count * STEP_BYTES // len(rows.page.body) + 1
        try:
            for span in rows.spans:
                at = span.start
                while at < span.stop:
                    stop = min(at + step, span.stop)
                    address = out.address(room(at, stop))
                    report.written = 0
                    is_done = call(at, stop, address, *fields.addresses, report)
                    out.add_written(report.written)
                    if not is_done:
                        raise MemoryError  # noqa: TRY301
                    counts.guarded_cells += report.guarded
                    counts.replaced_characters += report.replaced
                    index += report.next - at
                    at = report.next
                    if at < stop:
                        odd(index)
                        index, at = index + 1, at + 1
        except BaseException:
            out.truncate(begin)
            raise
        return fields


class Fields:
    """Which fields the written rows have had."""

    def __init__(self, page: Page, columns: Sequence[str]) -> None:
        self._page = page
        self._columns = columns
        self._extras = (ctypes.c_uint32 * (page.cut.name_count + 1))()
        self._present = (ctypes.c_uint8 * (len(columns) + 1))()
        self.addresses = ctypes.addressof(self._extras), ctypes.addressof(self._present)

    def present(self) -> set[str]:
        """Returns the columns that at least one row has."""
        return {name for name, seen in zip(self._columns, self._present, strict=False) if seen}

    def extras(self) -> Mapping[str, int]:
        """Returns the number of rows with each field that is no column."""
        return {self._page.name(place): rows for place, rows in enumerate(self._extras) if rows}
