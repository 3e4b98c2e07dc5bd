"""Changes pages of search results so that they are false or contradict themselves."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec


class Page(Protocol):
    """A page of search results in the shape of a contract, with the postings as unchanged bytes."""

    rows: list[msgspec.Raw]
    """Postings of the page; removing a posting from this list removes it from the page."""

    def miscount(self, chances: random.Random) -> None:
        """Replaces the number of postings that the page states by a false one, chosen at random.

        The number is the total of the search, or the size of the page if the contract has no total.
        A stated number of pages is calculated from the false total.
        """

    def repeat_cursor(self, cursor: str) -> bool:
        """Makes `cursor` the cursor of the next page, and returns True.

        Returns False, and changes nothing, if the contract has no cursors.
        """


class _Hirebase(msgspec.Struct):
    rows: list[msgspec.Raw] = msgspec.field(name="jobs")
    total_count: int
    company_count: int
    page: int
    limit: int
    total_pages: int

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
    rows: list[msgspec.Raw] = msgspec.field(name="data")
    pagination: _Pagination

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
    rows: list[msgspec.Raw] = msgspec.field(name="items")

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
"""Maps the method and path of a search to the type of its pages."""


def apply(
    fault: str, chances: random.Random, search: tuple[str, str], cursor: str | None, body: bytes
) -> bytes | None:
    """Returns the body of a search response with a fault; None if this page cannot have the fault.

    `fault` is a name in LIES, `search` the method and path of the request, `cursor` its cursor, and
    `body` the true response.
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
    """Returns a false count, chosen at random from some that clients could overlook.

    `true` is the true count. `page_end` is the count with which this page would be the last one:
    this false count contradicts nothing else on the page, so it is the hardest to detect.
    """
    lies = {page_end, 0, true // 2, true - 1, true + 1, true + 1000}
    return chances.choice(sorted(lie for lie in lies if lie >= 0 and lie != true))


LIES: Mapping[str, Callable[[random.Random, Page, str | None], bool]] = {
    "empty": _leave_empty,
    "short": _leave_short,
    "total": _miscount,
    "cursor": _repeat_cursor,
}
"""Maps the name of a fault to the function that changes a page.

The function returns True, or False if the page cannot have the fault.
"""
