"""Makes pages false or contradictory, in the shape of each contract."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec


class Page(Protocol):
    """The board's response to a search, with the postings as unchanged bytes."""

    @property
    def rows(self) -> list[msgspec.Raw]:
        """Postings of the page; removing items from this list removes them from the page."""

    def miscount(self, chances: random.Random) -> None:
        """Makes the stated number of postings false, and the number of pages derived from it."""

    def repeat_cursor(self, cursor: str) -> bool:
        """Sets this cursor as the next one; returns False if the contract has no cursors."""


class _Hirebase(msgspec.Struct):
    jobs: list[msgspec.Raw]
    total_count: int
    company_count: int
    page: int
    limit: int
    total_pages: int

    @property
    def rows(self) -> list[msgspec.Raw]:
        return self.jobs

    def miscount(self, chances: random.Random) -> None:
        self.total_count = _false_count(chances, self.total_count, self.page * self.limit)
        self.total_pages = -(-self.total_count // self.limit)

    def repeat_cursor(self, cursor: str) -> bool:  # noqa: ARG002
        return False


class _Pagination(msgspec.Struct, rename="camel"):
    total_count: int
    total_pages: int
    current_page: int
    limit: int


class _Qwestly(msgspec.Struct):
    success: bool
    data: list[msgspec.Raw]
    pagination: _Pagination

    @property
    def rows(self) -> list[msgspec.Raw]:
        return self.data

    def miscount(self, chances: random.Random) -> None:
        shown = self.pagination
        end = shown.current_page * shown.limit
        shown.total_count = _false_count(chances, shown.total_count, end)
        shown.total_pages = -(-shown.total_count // shown.limit)

    def repeat_cursor(self, cursor: str) -> bool:  # noqa: ARG002
        return False


class _Bindbee(msgspec.Struct):
    cursor: str | None
    page_size: int
    items: list[msgspec.Raw]

    @property
    def rows(self) -> list[msgspec.Raw]:
        return self.items

    def miscount(self, chances: random.Random) -> None:
        self.page_size = _false_count(chances, self.page_size, 0)

    def repeat_cursor(self, cursor: str) -> bool:
        self.cursor = cursor
        return True


SHAPES: Mapping[tuple[str, str], type[Page]] = {
    ("POST", "/v2/jobs/search"): _Hirebase,
    ("GET", "/api/external/search/jobs"): _Qwestly,
    ("GET", "/api/ats/v1/jobs"): _Bindbee,
}
"""Maps the method and path of a search to the shape of its pages."""


def apply(
    fault: str, chances: random.Random, search: tuple[str, str], cursor: str | None, body: bytes
) -> bytes | None:
    """Returns a response body with the fault, or None if this page cannot have the fault.

    `cursor` is the cursor of the request.
    """
    page = msgspec.json.decode(body, type=SHAPES[search])
    return msgspec.json.encode(page) if LIES[fault](chances, page, cursor) else None


def _leave_empty(_: random.Random, page: Page, __: str | None) -> bool:
    had = bool(page.rows)
    page.rows.clear()
    return had


def _leave_short(chances: random.Random, page: Page, _: str | None) -> bool:
    missing = min(chances.randint(1, 3), len(page.rows) - 1)
    if missing < 1:
        return False
    del page.rows[-missing:]
    return True


def _miscount(chances: random.Random, page: Page, _: str | None) -> bool:
    page.miscount(chances)
    return True


def _repeat_cursor(_: random.Random, page: Page, cursor: str | None) -> bool:
    return cursor is not None and page.repeat_cursor(cursor)


def _false_count(chances: random.Random, true: int, page_end: int) -> int:
    """Returns a random count other than the true one.

    `page_end` is the count at which this page would be the last: a false total without any
    contradiction on the page, and so the hardest to detect.
    """
    lies = {page_end, 0, true // 2, true - 1, true + 1, true + 1000}
    return chances.choice(sorted(lie for lie in lies if lie >= 0 and lie != true))


LIES: Mapping[str, Callable[[random.Random, Page, str | None], bool]] = {
    "empty": _leave_empty,
    "short": _leave_short,
    "total": _miscount,
    "cursor": _repeat_cursor,
}
"""Maps a fault to a function that changes a page; the function returns False if it cannot."""
