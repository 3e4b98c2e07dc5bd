"""Ids of rows: finds rows that came before, and a list that begins again."""

from __future__ import annotations

import base64
import sys
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from typing import Any, cast

import msgspec

from exporter.core.checkpoints import Checkpoint, Row
from exporter.errors import SourceUntrue
from exporter.native import pages

DUPLICATE_WINDOW_ROWS = 1_000
"""Number of latest rows whose ids are remembered to detect duplicates.

If a list grows while it is read by page number, rows move onto the next page and are read twice,
one shortly after the other. Repetitions further apart come from the source itself and are kept.
"""
FIRST_ROWS = 100
"""Number of rows at the beginning of a list that are remembered to its end.

If half of them come again, one closely after the other, the list has begun again.
"""
DIGEST_BYTES = 8
"""Number of bytes that are kept of the hash of each row id.

With this size, a row is wrongly taken for a duplicate in one of 10^10 exports of a million rows.
"""

_NO_IDS = frozenset({b"", b"null", b'""', b"{}", b"[]"})
_UNSET_IDS = frozenset({b"0", b"-0", b"0.0", b"false", b'"00000000-0000-0000-0000-000000000000"'})
"""Ids that some upstreams send for postings without an id.

A posting may also have this id, so rows with it count as repeated if they are equal.
"""


Digest = int
"""The hash of a row's id: DIGEST_BYTES bytes, little-endian."""


class RecentIds:
    """Remembers the ids of the latest rows as short digests."""

    def __init__(self, stored: str, repeated: int) -> None:
        self.repeated = repeated
        """Number of rows in a row, up to the latest, whose ids were among the recent ids."""
        self._order = unpack(stored)
        self._known: set[Digest | None] = set(self._order)

    def without_repeated(
        self, rows: Sequence[Row], ids: Sequence[Digest | None]
    ) -> tuple[Sequence[Row], Sequence[Digest]]:
        """Returns the rows whose id is not among the recent ids, with their ids; remembers these.

        Rows without an id are always returned, with a hash of the row. Raises SourceUntrue if more
        rows in a row were repeated than ids are remembered: no row of the list is then new.
        """
        before, known = len(self._known), self._known
        known.update(ids)
        if len(known) == before + len(ids) and None not in known:
            # The usual case, at a tenth of the time: every row is new.
            digests = cast("Sequence[Digest]", ids)
            self._append(digests)
            if digests:
                self.repeated = 0
            return rows, digests
        self._known = known = set(self._order)
        kept: list[int] = []
        kept_ids: list[Digest] = []
        for place, digest in enumerate(ids):
            if digest is None:
                kept.append(place)
                kept_ids.append(_digest(bytes(rows[place])))
            elif digest in known:
                self.repeated += 1
                continue
            else:
                known.add(digest)
                self._append((digest,))
                kept.append(place)
                kept_ids.append(digest)
            self.repeated = 0
        if self.repeated > DUPLICATE_WINDOW_ROWS:
            raise SourceUntrue(
                f"the source's pages repeat: its latest {self.repeated} rows came before"
            )
        return _pick(rows, kept), kept_ids

    def stored(self) -> str:
        return pack(self._order)

    def _append(self, new: Sequence[Digest]) -> None:
        """Appends ids, which are already known, and forgets those of the oldest rows for them."""
        self._order.extend(new)
        oldest = self._order[:-DUPLICATE_WINDOW_ROWS]
        del self._order[: len(oldest)]
        self._known.difference_update(oldest)


class FirstRows:
    """Remembers the first rows of a list, and detects that they come again.

    A server that ignores page numbers above its maximum, or counts in a circle, sends its first
    page again after thousands of rows, which are then no longer among the recent ids. A few of the
    first rows may come again, because some boards show a posting in two places; each other row
    therefore reduces the count of those that came again.
    """

    def __init__(self, at: Checkpoint, whole: str) -> None:
        """Stores the position and, for a later partition, the first rows of the whole list."""
        self.again = at.again
        """The count of first rows that came again."""
        self._first = unpack(at.head)
        self._is_later = bool(whole)
        self._known = set(unpack(whole) if whole else self._first)

    def check_page(self, ids: Sequence[Digest | None], at: Checkpoint) -> None:
        """Raises SourceUntrue if a page, with these ids, has only first rows, long after them.

        `at` is the position before the page. A page that comes again at once may have moved down
        the list as a whole.
        """
        known = self._known
        is_far = self._is_later or at.fetched >= 2 * len(known)
        if is_far and len(ids) > 1 and all(digest in known for digest in ids):
            raise SourceUntrue(
                f"page one repeats: after {at.fetched} rows, the source sent a page of its first "
                "rows again"
            )

    def check(self, ids: Sequence[Digest], at: Checkpoint) -> None:
        """Raises SourceUntrue if the new rows of a page, with these ids, begin the list again.

        `at` is the position before the page.
        """
        known, again = self._known, self.again
        most = max(2, len(known) // 2)
        if again or not known.isdisjoint(ids):
            for digest in ids:
                again = again + 1 if digest in known else max(again - 1, 0)
                self.again = again
                if again >= most:
                    break
            if again >= most:
                raise SourceUntrue(
                    f"page one repeats: after {at.fetched} rows, the source sent {again} of "
                    "its first rows again, so its list has no end or is shorter than announced"
                )
        if at.fetched == 0 or 0 < len(self._first) < FIRST_ROWS:
            self._first += _distinct(ids, self._first)[: FIRST_ROWS - len(self._first)]
            if not self._is_later:
                self._known.update(self._first)

    def stored(self) -> str:
        return pack(self._first)


def first_rows(rows: Sequence[Row], ids: Sequence[Digest | None]) -> str:
    """Returns the digests of the first rows of a list, for `FirstRows`."""
    _, digests = RecentIds("", 0).without_repeated(rows, ids)
    return pack(_distinct(digests, [])[:FIRST_ROWS])


def _distinct(ids: Sequence[Digest], known: Sequence[Digest]) -> list[Digest]:
    """Returns the digests that are not `known`.

    A digest that comes twice is that of rows without an id that are equal. Such rows cannot be
    recognized, so it is left out.
    """
    counts = Counter(ids)
    return [digest for digest in ids if counts[digest] == 1 and digest not in known]


def pack(digests: Iterable[Digest]) -> str:
    """Returns the digests as text for a checkpoint."""
    return base64.b64encode(_little_endian(array("Q", digests)).tobytes()).decode()


def unpack(stored: str) -> list[Digest]:
    """Returns the digests of a text that `pack` has made."""
    return _little_endian(array("Q", base64.b64decode(stored))).tolist()


def _little_endian(numbers: array[int]) -> array[int]:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def _pick(rows: Sequence[Row], places: Sequence[int]) -> Sequence[Row]:
    if isinstance(rows, pages.Rows):
        return rows.pick(places)
    return [rows[place] for place in places]


def ids_of(rows: Sequence[Row], read: Callable[[Row], Digest | None]) -> Sequence[Digest | None]:
    """Returns the id of each row, or None; `read` reads those that were not read with the page."""
    digests = rows.digests() if isinstance(rows, pages.Rows) else None
    if digests is None:
        return [read(row) for row in rows]
    if digests and min(digests) > pages.DIGEST_NONE:
        return digests
    return [
        digest
        if digest > pages.DIGEST_NONE
        else None
        if digest == pages.DIGEST_NONE
        else read(rows[place])
        for place, digest in enumerate(digests)
    ]


def reader(name: str) -> Callable[[Row], Digest | None]:
    """Returns a function that reads the id of a row from its field `name`.

    The function returns None if the field is absent, null, an empty or blank text or an empty
    object or list, or if msgspec cannot read the row. For 0, false and the UUID of zeros see
    _UNSET_IDS.
    """
    shape = msgspec.defstruct(
        "Identified", [("id", msgspec.Raw, msgspec.field(default=msgspec.Raw(b""), name=name))]
    )
    decode: Callable[[Row], Any] = msgspec.json.Decoder(shape).decode

    def read(row: Row) -> Digest | None:
        try:
            found = bytes(decode(row).id)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            # Only the format's slow path can read this row; it is never counted as a duplicate.
            return None
        if found in _UNSET_IDS:
            return _digest(bytes(row))
        if found in _NO_IDS or (not found[1:2].isalnum() and _is_blank(found)):
            return None
        return _digest(found)

    return read


def _digest(text: bytes) -> Digest:
    return int.from_bytes(blake2b(text, digest_size=DIGEST_BYTES).digest(), "little")


def _is_blank(text: bytes) -> bool:
    """True if the JSON text is a text of blanks only."""
    try:
        return text[:1] == b'"' and not msgspec.json.decode(text, type=str).strip()
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
