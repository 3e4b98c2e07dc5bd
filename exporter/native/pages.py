"""Pages of JSON that the library has cut into rows."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, overload

from exporter.core.checkpoints import Row
from exporter.native import library

DIGEST_ASK = 0
"""In place of a digest: the id of the row must be read by Python code."""
DIGEST_NONE = 1
"""In place of a digest: the row has no id."""


class Page:
    """A page in the memory of the library, freed with the last of its rows."""

    def __init__(self, native: ctypes.CDLL, body: bytes, pointer: Any) -> None:
        self.native = native
        self.body = body
        self.pointer = pointer
        self.cut: library.CutPage = pointer.contents

    def __del__(self) -> None:
        self.native.page_free(self.pointer)

    def name(self, number: int) -> str:
        """Returns the name with a number, among those of all fields on the page."""
        place = self.cut.names[number]
        return ctypes.string_at(self.cut.name_bytes + place.at, place.size).decode(errors="replace")


class Rows(Sequence[Row]):
    """Rows of one page, in order, without a copy; an index copies one row.

    A slice has the type Rows, too.
    """

    def __init__(self, page: Page, spans: Sequence[range]) -> None:
        self.page = page
        self.spans = spans
        """Numbers of the rows, in ranges that are not empty."""
        self._count = sum(map(len, spans))

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Rows: ...
    def __getitem__(self, index: int | slice) -> Row | Rows:
        if isinstance(index, slice):
            start, stop, step = index.indices(self._count)
            if step != 1:
                raise ValueError("rows of a page are sliced in order, without gaps")
            return self if stop - start == self._count else self._between(start, stop)
        if index < 0:
            index += self._count
        for span in self.spans:
            if 0 <= index < len(span):
                place = self.page.cut.rows[span[index]]
                return self.page.body[place.at : place.at + place.size]
            index -= len(span)
        raise IndexError(index)

    @property
    def total_bytes(self) -> int:
        """Size of the rows with what stands between them, if no row of the page was left out."""
        return int(self.page.cut.list_end - self.page.cut.list_begin)

    def _between(self, start: int, stop: int) -> Rows:
        spans: list[range] = []
        for span in self.spans:
            if piece := span[max(start, 0) : max(stop, 0)]:
                spans.append(piece)
            start, stop = start - len(span), stop - len(span)
        return Rows(self.page, spans)

    def pick(self, places: Iterable[int]) -> Rows:
        """Returns the rows at these places, which must be in order."""
        numbers = [number for span in self.spans for number in span]
        spans: list[range] = []
        for number in map(numbers.__getitem__, places):
            if spans and spans[-1].stop == number:
                spans[-1] = range(spans[-1].start, number + 1)
            else:
                spans.append(range(number, number + 1))
        return Rows(self.page, spans)

    def digests(self) -> Sequence[int] | None:
        """Returns the digest of the id of each row, or DIGEST_ASK, or DIGEST_NONE.

        A digest is that of `hashlib.blake2b` with 8 bytes, little-endian. Returns None if the page
        was cut without the name of the id.
        """
        cut = self.page.cut
        if not cut.digests:
            return None
        found = array("Q", ctypes.string_at(cut.digests, 8 * cut.row_count)).tolist()
        if len(self.spans) == 1 and len(self.spans[0]) == len(found):
            return found
        return [found[number] for span in self.spans for number in span]


class Cut(NamedTuple):
    """A page in two pieces."""

    rows: Rows
    rest: bytes
    """The page with an empty list in place of the rows."""


def cut(body: bytes, path: Sequence[str], identity: str | None) -> Cut | None:
    """Returns the rows of a page and the rest of it.

    The rows are the list to which the names of `path` lead. `identity` is the name of the field
    with the id of a row. Returns None if there is no library, or for a page that only Python code
    can read.
    """
    native, _ = library.find()
    if native is None:
        return None
    names = b"".join(name.encode() + b"\0" for name in path)
    own = identity.encode() if identity is not None else None
    pointer = native.page_cut(body, len(body), names, len(path), own, len(own or b""))
    if not pointer:
        return None
    page = Page(native, body, pointer)
    count, begin, end = page.cut.row_count, page.cut.list_begin, page.cut.list_end
    return Cut(Rows(page, [range(count)] if count else []), body[:begin] + b"[]" + body[end:])
