"""Pages that contradict themselves, in the shape of each contract."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec


class Page(Protocol):
    """The board's answer to a search; the postings keep every byte."""

    @property
    def rows(self) -> list[msgspec.Raw]:
        """The page's postings, to be taken away from."""

    def miscount(self, chances: random.Random) -> None:
        """Makes the page's number of postings false, and what follows from it."""

    def repeat(self, cursor: str) -> bool:
        """Makes the page name that cursor as the next; False if it names none."""


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
        self.total_count = _false_total(chances, self.total_count, self.page * self.limit)
        self.total_pages = -(-self.total_count // self.limit)

    def repeat(self, cursor: str) -> bool:  # noqa: ARG002
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
        said = self.pagination
        said.total_count = _false_total(chances, said.total_count, said.current_page * said.limit)
        said.total_pages = -(-said.total_count // said.limit)

    def repeat(self, cursor: str) -> bool:  # noqa: ARG002
        return False


class _Bindbee(msgspec.Struct):
    cursor: str | None
    page_size: int
    items: list[msgspec.Raw]

    @property
    def rows(self) -> list[msgspec.Raw]:
        return self.items

    def miscount(self, chances: random.Random) -> None:
        self.page_size = _false_total(chances, self.page_size, 0)

    def repeat(self, cursor: str) -> bool:
        self.cursor = cursor
        return True


SHAPES: Mapping[tuple[str, str], type[Page]] = {
    ("POST", "/v2/jobs/search"): _Hirebase,
    ("GET", "/api/external/search/jobs"): _Qwestly,
    ("GET", "/api/ats/v1/jobs"): _Bindbee,
}
"""What each search answers, by its method and path."""


def apply(
    fault: str, chances: random.Random, search: tuple[str, str], cursor: str | None, body: bytes
) -> bytes | None:
    """A search's answer with the lie in it, or None if this page cannot have it. `cursor` is the
    one that was asked for."""
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


def _repeat(_: random.Random, page: Page, cursor: str | None) -> bool:
    return cursor is not None and page.repeat(cursor)


def _false_total(chances: random.Random, true: int, worst: int) -> int:
    """Any but the true one. The worst makes a page the last, and nothing on it contradicts that."""
    lies = {worst, 0, true // 2, true - 1, true + 1, true + 1000}
    return chances.choice(sorted(lie for lie in lies if lie >= 0 and lie != true))


LIES: Mapping[str, Callable[[random.Random, Page, str | None], bool]] = {
    "empty": _leave_empty,
    "short": _leave_short,
    "total": _miscount,
    "cursor": _repeat,
}
"""By fault, what makes a page lie; it says whether the page could."""
