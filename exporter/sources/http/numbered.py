"""Page sizes and lookups for upstreams with numbered pages and one request for each posting."""

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
"""Ids in one lookup, which sends one request for each id."""
MAX_LOOKUP_SECONDS = 10.0
"""Time that the requests of one lookup may take under the source's rate.

A lookup that does not finish loses the answers it already has.
"""


def first_place(limit: int | None, offset: int, page_size: int) -> Place:
    """Returns the place of the first page; pages of equal size just cover the limit.

    Each page has at most `page_size` rows.
    """
    size = page_size
    if limit is not None:
        pages = -(-limit // size)
        size = -(-limit // pages)
    return Place(page=offset // size + 1, size=size, skip=offset % size)


def fetch_or_shrink(at: Place, ask: Callable[[Place, bool], Page]) -> Page:
    """Returns the page at `at`, or a smaller page with the same beginning if upstream fails.

    `ask` fetches the page at a place. Its second argument says whether a smaller page exists; if
    so, it raises PageTooLarge when that page should be tried.
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
    """Ids that one lookup accepts."""
    at_once: int
    """Requests of one lookup that run concurrently."""

    @classmethod
    def for_rate(cls, max_in_flight: int, rate: Rate | None) -> Lookups:
        """Returns limits that `rate` can serve soon; without a rate, the largest limits.

        A request that would have to wait longer than MAX_SLEEP_SECONDS for the rate is refused, and
        then the whole lookup starts again.
        """
        if rate is None:
            return cls(MAX_LOOKUP_IDS, max_in_flight)
        return cls(
            max(1, min(MAX_LOOKUP_IDS, int(MAX_LOOKUP_SECONDS / rate.interval))),
            max(1, min(max_in_flight, int(MAX_SLEEP_SECONDS / rate.interval))),
        )

    def run(self, ids: Sequence[str], one: Callable[[str], Row | None]) -> Mapping[str, Row]:
        """Returns the result of `one` for each id, without the ids for which the result is None."""
        with ThreadPoolExecutor(min(self.at_once, max(len(ids), 1))) as pool:
            asked = {id_: pool.submit(one, id_) for id_ in ids}
            try:
                found = {id_: answer.result() for id_, answer in asked.items()}
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return {id_: row for id_, row in found.items() if row is not None}
