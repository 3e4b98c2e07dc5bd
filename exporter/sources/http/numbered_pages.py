"""Numbered pages: the cursor of a page, and the check of its rows against its total."""

from __future__ import annotations

from typing import Annotated

import msgspec

from exporter.core.checkpoints import Cursor
from exporter.errors import SourceUntrue
from exporter.sources.base import Page


class Answer(msgspec.Struct):
    """A page of postings as a Hirebase upstream writes it; the postings are not parsed."""

    jobs: list[msgspec.Raw]
    total_count: Annotated[int, msgspec.Meta(ge=0)]
    page: int | None = None
    limit: int | None = None


class Place(msgspec.Struct):
    """The cursor of a source with numbered pages."""

    page: int
    """Number of the page, from 1, as upstream counts."""
    size: int
    skip: int = 0
    """Number of rows at the beginning of this page that the caller's offset skips."""
    follows: bool = False
    """Whether the previous page is known to have had rows."""


def check_page(answer: Answer, at: Place) -> Page:
    """Returns the answer as a Page, without the rows that `at` skips.

    Raises SourceUntrue if the answer is for another page or size, or if its number of rows is not
    the number that its total implies for this page.
    """
    if answer.limit not in (None, at.size) or answer.page not in (None, at.page):
        raise SourceUntrue(
            f"page {answer.page} of {answer.limit} rows, but page {at.page} of {at.size} rows was "
            "requested (if page_size is above the upstream's maximum, lower it)"
        )
    before = (at.page - 1) * at.size
    promised = min(max(answer.total_count - before, 0), at.size)
    if len(answer.jobs) != promised:
        raise SourceUntrue(
            f"{len(answer.jobs)} rows on page {at.page}, but its total_count of "
            f"{answer.total_count} implies {promised}"
        )
    if at.follows and answer.total_count <= before - at.size:
        raise SourceUntrue(
            f"total_count {answer.total_count} on page {at.page}, although the page before it, "
            f"from row {before - at.size + 1} on, had rows"
        )
    return Page(
        rows=answer.jobs[at.skip :] if at.skip else answer.jobs,
        next=_next_place(at) if promised else None,
        total=answer.total_count,
    )


def next_cursor(cursor: Cursor) -> Cursor:
    """Returns the cursor of the next page, assuming that the page at `cursor` has rows."""
    return _next_place(msgspec.convert(cursor, Place))


def _next_place(at: Place) -> Cursor:
    return msgspec.to_builtins(Place(page=at.page + 1, size=at.size, follows=True))


def smaller_page(at: Place) -> Place | None:
    """Returns the place of a smaller page that begins with the same row.

    Its size is the next smaller divisor of the page's size. Returns None if the page has only one
    row.
    """
    size = next((size for size in range(at.size // 2, 0, -1) if at.size % size == 0), None)
    if size is None:
        return None
    # `follows` is about the previous page of the old size, so it is not copied.
    page, skip = divmod((at.page - 1) * at.size + at.skip, size)
    return Place(page=page + 1, size=size, skip=skip)
