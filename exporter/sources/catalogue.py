"""The values that a Hirebase upstream knows of filters that take no others."""

from __future__ import annotations

import difflib
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec
import structlog

from exporter.clock import Clock
from exporter.contracts import filters
from exporter.errors import FieldProblem, QueryError, SourceError

log = structlog.get_logger()

LISTS: Mapping[str, str] = {
    "industries": "/v2/jobs/data/industries",
    "categories": "/v2/jobs/data/categories",
}
"""Where upstream tells each list, by the list's name."""
_FILTERS: Mapping[str, tuple[str, str]] = {
    "industry": ("industries", "industries"),
    "sub_industry": ("industries", "sub_industries"),
    "job_category": ("categories", "categories"),
}
"""By filter: which list, and which member of it."""
LIST_TTL_SECONDS = 3600.0
"""Seconds that a list is believed."""
RECHECK_SECONDS = 60.0
"""Seconds after which it is asked for again before a value is refused; an upstream that did not
tell it is left alone for as long."""
MAX_SUGGESTIONS = 3
"""Values that a refusal suggests at most."""


class _CachedList(NamedTuple):
    asked_at: float
    body: bytes | None
    """As upstream wrote it; None if it did not tell."""
    error: SourceError | None


class Catalogue:
    """What upstream lists, asked for when it is needed and remembered for an hour. Threads may
    share it.

    The vendor publishes no shape of these lists. Believed are an object with the members
    `industries` and `sub_industries`, or `categories`, each a list of texts, and a bare list of
    texts as the first of them; of any other shape, and of an empty list, nothing is concluded.
    """

    def __init__(self, ask: Callable[[str], bytes], clock: Clock) -> None:
        """`ask` gives the body of a path, or raises SourceError, within seconds."""
        self._ask = ask
        self._clock = clock
        self._lock = threading.Lock()
        self._cached: dict[str, _CachedList] = {}

    def body(self, name: str, max_age: float = LIST_TTL_SECONDS) -> bytes:
        """One of LISTS as upstream wrote it, at most `fresh` seconds ago unless it does not answer
        now. Raises SourceError if it never did."""
        with self._lock:
            kept, now = self._cached.get(name), self._clock.monotonic()
            believed = max_age if kept is not None and kept.error is None else RECHECK_SECONDS
            if kept is None or now - kept.asked_at >= believed:
                kept = self._cached[name] = self._refreshed(name, kept, now)
        if kept.body is None:
            assert kept.error is not None
            raise kept.error
        return kept.body

    def with_listed_spelling(self, query: Mapping[str, Any]) -> dict[str, Any]:
        """The canonical query with each value as upstream spells it: case, spaces and punctuation
        may differ.

        Raises QueryError for a value that upstream does not list; it names those that come near.
        If upstream cannot be asked, or lists nothing, any value is as good as another.
        """
        result = dict(query)
        problems: list[FieldProblem] = []
        for name in _FILTERS.keys() & query.keys():
            known = self._known(name)
            if known is not None and not _all_in(query[name], known):
                known = self._known(name, max_age=RECHECK_SECONDS) or known
            if known is None:
                continue
            result[name] = [known.get(filters.fold(value), value) for value in query[name]]
            problems += [
                _unknown_value(name, value, known)
                for value in query[name]
                if filters.fold(value) not in known
            ]
        if problems:
            raise QueryError(problems)
        return result

    def _known(
        self, filter_name: str, max_age: float = LIST_TTL_SECONDS
    ) -> Mapping[str, str] | None:
        """What upstream lists for a filter, by `queries.fold`; None if nobody can tell."""
        name, member = _FILTERS[filter_name]
        try:
            body = self.body(name, max_age)
        except SourceError:
            return None
        return {filters.fold(value): value for value in _values(body, name, member)} or None

    def _refreshed(self, name: str, before: _CachedList | None, now: float) -> _CachedList:
        try:
            return _CachedList(now, self._ask(LISTS[name]), None)
        except SourceError as error:
            log.warning("source.no_catalogue", list=name, reason=str(error))
            return _CachedList(now, before.body if before else None, error)


def _all_in(values: list[str], known: Mapping[str, str]) -> bool:
    return all(filters.fold(value) in known for value in values)


def _values(body: bytes, name: str, member: str) -> list[str]:
    try:
        told = msgspec.json.decode(body)
        if isinstance(told, dict):
            told = told.get(member)
        elif name != member:
            told = []
        return msgspec.convert(told, list[str])
    except msgspec.MsgspecError:
        return []


def _unknown_value(filter_name: str, value: str, known: Mapping[str, str]) -> FieldProblem:
    near = difflib.get_close_matches(filters.fold(value), known, n=MAX_SUGGESTIONS)
    hint = f"did you mean {' or '.join(repr(known[one]) for one in near)}? " if near else ""
    path = LISTS[_FILTERS[filter_name][0]]
    return {
        "loc": (filter_name,),
        "msg": f"unknown {filter_name} {value!r}: {hint}GET {path} lists all {len(known)}",
        "type": "unknown_value",
    }
