"""A page of a Hirebase upstream: where it is, and whether it holds what it promises."""

from __future__ import annotations

from typing import Annotated

import msgspec

from exporter.core.checkpoints import Cursor
from exporter.errors import SourceUntrue
from exporter.sources.base import Page


class Answer(msgspec.Struct):
    """A page of postings as upstream writes it, its postings not looked into."""

    jobs: list[msgspec.Raw]
    total_count: Annotated[int, msgspec.Meta(ge=0)]
    page: int | None = None
    limit: int | None = None


class Place(msgspec.Struct):
    """Which page, and what of it: the cursor of a Hirebase source."""

    page: int
    """Counted from 1, as upstream counts."""
    size: int
    skip: int = 0
    """Rows at the head of this page that the caller did not ask for."""
    follows: bool = False
    """Whether a page with rows came before this one."""


def check_page(answer: Answer, at: Place) -> Page:
    """The page, if it holds exactly the rows that its own total promises for this place.

    Raises SourceUntrue.
    """
    if answer.limit not in (None, at.size) or answer.page not in (None, at.page):
        raise SourceUntrue(
            f"page {answer.page} of {answer.limit} rows where page {at.page} of {at.size} was "
            "asked for (is page_size above what it takes?)"
        )
    before = (at.page - 1) * at.size
    promised = min(max(answer.total_count - before, 0), at.size)
    if len(answer.jobs) != promised:
        raise SourceUntrue(
            f"{len(answer.jobs)} rows on page {at.page} where its total_count of "
            f"{answer.total_count} promises {promised}"
        )
    if at.follows and answer.total_count <= before - at.size:
        raise SourceUntrue(
            f"total_count {answer.total_count} on page {at.page}, although the page before it, "
            f"from row {before - at.size + 1} on, had rows"
        )
    return Page(
        rows=answer.jobs[at.skip :],
        next=_next_place(at) if promised else None,
        total=answer.total_count,
    )


def next_cursor(cursor: Cursor) -> Cursor:
    """The cursor of the page behind that one, if that one has rows."""
    return _next_place(msgspec.convert(cursor, Place))


def _next_place(at: Place) -> Cursor:
    return msgspec.to_builtins(Place(page=at.page + 1, size=at.size, follows=True))


def smaller_page(at: Place) -> Place | None:
    """The beginning of that page as a page of the next smaller size, which divides this one so that
    a page begins where this one does; None if there is no smaller one."""
    size = next((size for size in range(at.size // 2, 0, -1) if at.size % size == 0), None)
    if size is None:
        return None
    # That the page before had rows says nothing about the last of them, so `follows` is dropped.
    page, skip = divmod((at.page - 1) * at.size + at.skip, size)
    return Place(page=page + 1, size=size, skip=skip)
