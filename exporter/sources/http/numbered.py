"""Reading an upstream whose lists have numbered pages, and whose postings come one by one."""

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
"""Ids that one lookup takes, one request each."""
MAX_LOOKUP_SECONDS = 10.0
"""How long a lookup may wait for its turns, where the source has a rate: its answers are lost if
it does not come to its end."""


def first_place(limit: int | None, offset: int, page_size: int) -> Place:
    """Where pages of equal size begin that together just cover the limit, each at most
    `page_size`."""
    size = page_size
    if limit is not None:
        pages = -(-limit // size)
        size = -(-limit // pages)
    return Place(page=offset // size + 1, size=size, skip=offset % size)


def fetch_or_shrink(at: Place, ask: Callable[[Place, bool], Page]) -> Page:
    """What `ask` gives for that page or, if upstream does not manage it, for its beginning.

    `ask` takes a place and whether there is a smaller one, and raises PageTooLarge if there is and
    it should be tried.
    """
    whole = at
    while True:
        less = smaller_page(at)
        try:
            return ask(at, less is not None)
        except PageTooLarge as error:
            # What may have another reason than the size is tried with one other size only.
            if less is None or (error.guess and at is not whole):
                raise
            log.warning("source.page_shrunk", size=at.size, smaller=less.size, reason=str(error))
            at = less


class Lookups(NamedTuple):
    """How postings are asked for one by one."""

    size: int
    """Ids that are taken at once."""
    at_once: int
    """Requests under way at once."""

    @classmethod
    def for_rate(cls, max_in_flight: int, rate: Rate | None) -> Lookups:
        """As many as the rate, if there is one, lets through soon: a turn that is far away is not
        waited for, and then the whole lookup begins anew."""
        if rate is None:
            return cls(MAX_LOOKUP_IDS, max_in_flight)
        return cls(
            max(1, min(MAX_LOOKUP_IDS, int(MAX_LOOKUP_SECONDS / rate.interval))),
            max(1, min(max_in_flight, int(MAX_SLEEP_SECONDS / rate.interval))),
        )

    def run(self, ids: Sequence[str], one: Callable[[str], Row | None]) -> Mapping[str, Row]:
        """What `one` gives for each id, without those for which it gives None."""
        with ThreadPoolExecutor(min(self.at_once, max(len(ids), 1))) as pool:
            asked = {id_: pool.submit(one, id_) for id_ in ids}
            try:
                found = {id_: answer.result() for id_, answer in asked.items()}
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return {id_: row for id_, row in found.items() if row is not None}
