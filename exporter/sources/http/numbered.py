"""Page sizes of sources with numbered pages, and lookups by one request for each posting."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import structlog

from exporter.core.checkpoints import Row
from exporter.core.rates import MAX_SLEEP_SECONDS, Rate
from exporter.errors import PageTooLarge
from exporter.sources.base import Page
from exporter.sources.http.numbered_pages import Place, smaller_page

log = structlog.get_logger()

MAX_LOOKUP_IDS = 100
"""Maximum number of ids in one lookup, which sends one request for each id."""
MAX_LOOKUP_SECONDS = 10.0
"""Time that the requests of one lookup may take under the source's rate limit.

A lookup that is interrupted has to begin again, so it must not be long.
"""


def first_place(limit: int | None, offset: int, page_size: int) -> Place:
    """Returns the place of the first page, with the size of all pages.

    All pages have the same size, chosen so that they together read as few rows above the limit as
    possible. No page is larger than `page_size`.
    """
    size = page_size
    if limit is not None:
        pages = -(-limit // size)
        size = -(-limit // pages)
    return Place(page=offset // size + 1, size=size, skip=offset % size)


def fetch_or_shrink(at: Place, ask: Callable[[Place, bool], Page]) -> Page:
    """Returns the page at `at`, or a smaller page that begins with the same row.

    `ask(place, can_shrink)` must fetch the page at a place. `can_shrink` is True if a smaller page
    exists; only then may `ask` raise PageTooLarge, and the smaller page is fetched.
    """
    whole = at
    while True:
        less = smaller_page(at)
        try:
            return ask(at, less is not None)
        except PageTooLarge as error:
            # If the size is only a possible reason, one smaller size is tried and no more.
            if less is None or (error.guess and at is not whole):
                raise
            log.warning("source.page_shrunk", size=at.size, smaller=less.size, reason=str(error))
            at = less


class Lookups(NamedTuple):
    """The limits of lookups that send one request for each id."""

    size: int
    """Maximum number of ids in one lookup."""
    at_once: int
    """Maximum number of requests of one lookup that run at the same time."""

    @classmethod
    def for_rate(cls, max_in_flight: int, rate: Rate | None) -> Lookups:
        """Returns the limits for a source with that rate limit, or the largest limits without one.

        With these limits no request has to wait for the rate longer than MAX_SLEEP_SECONDS. Such a
        request would be refused, and the whole lookup would begin again.
        """
        if rate is None:
            return cls(MAX_LOOKUP_IDS, max_in_flight)
        return cls(
            max(1, min(MAX_LOOKUP_IDS, int(MAX_LOOKUP_SECONDS / rate.interval))),
            max(1, min(max_in_flight, int(MAX_SLEEP_SECONDS / rate.interval))),
        )

    def run(self, ids: Sequence[str], one: Callable[[str], Row | None]) -> Mapping[str, Row]:
        """Calls `one` for each id, several at once; returns the results by id, without None."""
        with ThreadPoolExecutor(min(self.at_once, max(len(ids), 1))) as pool:
            asked = {id_: pool.submit(one, id_) for id_ in ids}
            try:
                found = {id_: answer.result() for id_, answer in asked.items()}
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return {id_: row for id_, row in found.items() if row is not None}
