"""Tracks the reading position of an export: selects rows, drops duplicates, proves the end."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence

from exporter.core.checkpoints import Checkpoint, Row
from exporter.core.exports import Completeness, EndReason, Outcome, Spec
from exporter.errors import SourceUntrue
from exporter.run import row_ids
from exporter.run.row_ids import FirstRows, RecentIds
from exporter.sources.base import Page


class PageReader:
    """Accepts the pages of one export in order and returns the rows to write.

    Uses no clock and no network; its whole state is in the checkpoint that it makes.
    """

    def __init__(
        self,
        spec: Spec,
        at: Checkpoint,
        *,
        identity: str | None,
        tolerated_drift: float,
        first_rows: str = "",
    ) -> None:
        """Stores the request and the position.

        `first_rows` is `Partition.first_rows` for every partition but the first, else empty.
        """
        self.at = at
        self.unknown: list[str] = _unpack_ids(at.unknown)
        """Requested ids that the source does not have."""
        self._spec = spec
        self._tolerated_drift = tolerated_drift
        self._read_id = row_ids.reader(identity) if identity is not None else None
        self._recent = RecentIds(at.seen, at.repeated)
        self._first = FirstRows(at, first_rows)

    @property
    def ended(self) -> bool:
        """True if it is proven that no row follows."""
        return self.at.end_reason is not None

    def accept(self, page: Page) -> Sequence[Row]:
        """Returns the rows of the page that belong in the file; moves the position past the page.

        Duplicates and rows beyond the limit are left out. Raises SourceUntrue, with the numbers in
        its text, if the pages contradict each other: a cursor or the first page repeats, the pages
        end with another number of rows than announced, or the list changed by more than
        `tolerated_drift`.
        """
        at = self.at
        fresh = self._without_repeated(page.rows)
        room = None if self._spec.limit is None else self._spec.limit - at.rows
        rows = fresh if room is None else fresh[:room]
        self.unknown += page.unknown
        total = None if page.total is None else max(page.total - self._spec.offset, 0)
        end: EndReason | None = None
        if page.next is None and len(rows) == len(fresh):
            end = EndReason.NULL_CURSOR if total is None else EndReason.TOTAL_REACHED
        elif room is not None and len(rows) == room:
            end = EndReason.LIMIT_REACHED
        elif page.next in (at.cursor, at.landmark):
            raise SourceUntrue(
                f"the cursor {page.next!r} came again after {at.fetched} rows: the source's pages "
                "form a cycle"
            )
        pages = at.pages + 1
        self.at = at.evolve(
            cursor=page.next,
            end_reason=end,
            rows=at.rows + len(rows),
            fetched=at.fetched + len(page.rows) + len(page.unknown),
            duplicates=at.duplicates + len(page.rows) - len(fresh),
            over_limit=len(fresh) - len(rows),
            pages=pages,
            # Brent's cycle detection finds a cycle of any length: the remembered cursor is
            # replaced each time the number of pages has doubled.
            landmark=at.cursor if pages & (pages - 1) == 0 else at.landmark,
            total_at_start=total if at.pages == 0 else at.total_at_start,
            total_at_end=total,
        )
        if end is EndReason.TOTAL_REACHED:
            self._check_total()
        return rows

    def page_after_all_rows(self) -> Page | None:
        """Returns an empty last page if as many rows were read as the source last announced.

        Some upstreams refuse a request for the page after the last one instead of answering with an
        empty page. The total then proves the end. Returns None if it does not.
        """
        total = self.at.total_at_end
        if total is None or self.at.fetched != total:
            return None
        return Page(rows=(), next=None, total=total + self._spec.offset)

    def checkpoint(self) -> Checkpoint:
        """Returns a checkpoint from which another worker continues after the last accepted page.

        It has the ids of the latest and the first rows, by which repeated rows are found, and the
        requested ids that the source does not have.
        """
        return self.at.evolve(
            seen=self._recent.stored(),
            head=self._first.stored(),
            again=self._first.again,
            repeated=self._recent.repeated,
            unknown=_pack_ids(self.unknown),
        )

    def first_rows(self, page: Page) -> str:
        """Returns the digests of the first rows of the first page, for `Partition.first_rows`."""
        if self._read_id is None:
            return ""
        return row_ids.first_rows(page.rows, row_ids.ids_of(page.rows, self._read_id))

    def completeness(self) -> Completeness:
        """Returns the proof of completeness; may be called only after the last page."""
        at = self.at
        known = [n for n in (at.total_at_end, self._spec.limit) if n is not None]
        if at.rows == 0:
            outcome = Outcome.EMPTY
        elif self._is_truncated():
            outcome = Outcome.TRUNCATED
        elif self._drift_rows() or self.unknown:
            outcome = Outcome.PARTIAL
        else:
            outcome = Outcome.COMPLETE
        return Completeness(
            outcome=outcome,
            end_reason=EndReason(at.end_reason or ""),
            exported=at.rows,
            expected=min(known) if at.total_at_end is not None else None,
            duplicates_removed=at.duplicates,
            skipped=at.fetched - at.rows - at.duplicates - at.over_limit,
            total_at_start=at.total_at_start,
            total_at_end=at.total_at_end,
        )

    def _without_repeated(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Returns the rows that did not come shortly before.

        Raises SourceUntrue if the list repeats.
        """
        if self._read_id is None:
            return rows
        all_ids = row_ids.ids_of(rows, self._read_id)
        self._first.check_page(all_ids, self.at)
        fresh, ids = self._recent.without_repeated(rows, all_ids)
        self._first.check(ids, self.at)
        return fresh

    def _is_truncated(self) -> bool:
        """True if the limit was reached while the source had, or may have had, more rows."""
        at = self.at
        return at.end_reason == EndReason.LIMIT_REACHED and (
            at.total_at_end is None or at.fetched - at.over_limit < at.total_at_end
        )

    def _drift_rows(self) -> int:
        """Returns by how many rows the source has visibly changed while it was read.

        This is the difference of its totals at start and end or, if larger, the number of
        duplicates. 0 if the source announces no total.
        """
        if self.at.total_at_start is None or self.at.total_at_end is None:
            return 0
        return max(abs(self.at.total_at_end - self.at.total_at_start), self.at.duplicates)

    def _check_total(self) -> None:
        at = self.at
        if at.fetched != at.total_at_end:
            raise SourceUntrue(
                f"the source's pages ended after {at.fetched} rows, its total says "
                f"{at.total_at_end} ({at.total_at_start} at the start)"
            )
        drift, most = self._drift_rows(), self._tolerated_drift * max(at.total_at_start or 0, 1)
        if drift > most:
            raise SourceUntrue(
                f"the source changed by {drift} rows while it was read (total {at.total_at_start} "
                f"at the start, {at.total_at_end} at the end, {at.duplicates} rows came twice); "
                f"tolerated_drift allows {int(most)}"
            )


def _pack_ids(ids: Sequence[str]) -> str:
    return base64.b64encode(zlib.compress("\n".join(ids).encode(), 1)).decode() if ids else ""


def _unpack_ids(stored: str) -> list[str]:
    return zlib.decompress(base64.b64decode(stored)).decode().split("\n") if stored else []
