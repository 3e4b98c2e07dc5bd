"""The lists of allowed filter values that a Hirebase upstream publishes."""

from __future__ import annotations

import difflib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import structlog

from exporter.clock import Clock
from exporter.contracts import filters
from exporter.errors import FieldProblem, QueryError, SourceError, problem

log = structlog.get_logger()

LISTS: Mapping[str, str] = {
    "industries": "/v2/jobs/data/industries",
    "categories": "/v2/jobs/data/categories",
}
"""The path of each published list on the upstream, by the name of the list."""
_FILTERS: Mapping[str, tuple[str, str]] = {
    "industry": ("industries", "industries"),
    "sub_industry": ("industries", "sub_industries"),
    "job_category": ("categories", "categories"),
}
"""For each filter, the name of its list, and the field of the list's JSON with the values."""
LISTED_FILTERS = _FILTERS.keys()
LIST_TTL_SECONDS = 3600.0
"""Maximum age of a fetched list that is used without a new request."""
RECHECK_SECONDS = 60.0
"""Age from which a list is fetched again before one of its filters' values is refused.

After a failed fetch of a list, no request for this list is sent for the same time.
"""
MAX_SUGGESTIONS = 3
"""Maximum number of similar values that the error for an unknown value suggests."""
MAX_SUGGESTED_VALUES = 3
"""Unknown values of one query for which similar values are searched.

The text of an answer quotes three problems, and a search compares the value with the whole list.
"""


class _CachedList(NamedTuple):
    asked_at: float
    body: bytes | None
    """The list, byte for byte as the upstream sent it; None if no fetch has succeeded."""
    error: SourceError | None


class Catalogue:
    """The published lists, fetched on demand and cached for LIST_TTL_SECONDS. Thread-safe.

    The vendor does not document the form of these lists. Two forms are accepted: an object with the
    fields `industries` and `sub_industries`, or `categories`, each a list of texts; and a bare list
    of texts, which counts as `industries` or `categories`. If a list has another form or is empty,
    every value of its filter is allowed.
    """

    def __init__(self, ask: Callable[[str], bytes], clock: Clock) -> None:
        """Stores `ask`, which fetches a list.

        `ask(path)` must return the body at that path, or raise SourceError, within some seconds.
        """
        self._ask = ask
        self._clock = clock
        self._lock = threading.Lock()
        self._cached: dict[str, _CachedList] = {}

    def body(self, name: str, max_age: float = LIST_TTL_SECONDS) -> bytes:
        """Returns a list of LISTS, byte for byte as the upstream sent it.

        The list is at most `max_age` seconds old, or older if the upstream does not answer now.
        Raises SourceError if no fetch has ever succeeded.
        """
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
        """Returns the canonical query, with each value spelled as in the published list.

        Values are compared without regard to case, spaces and punctuation. Raises QueryError for a
        value that is not in the list; the error suggests similar values. If the list cannot be
        fetched or is empty, every value is accepted unchanged.
        """
        result = dict(query)
        problems: list[FieldProblem] = []
        for name in [one for one in _FILTERS if one in query]:
            known = self._known(name)
            if known is not None and any(filters.fold(one) not in known for one in query[name]):
                known = self._known(name, max_age=RECHECK_SECONDS) or known
            if known is None:
                continue
            result[name] = [known.get(filters.fold(value), value) for value in query[name]]
            unknown = [value for value in query[name] if filters.fold(value) not in known]
            searched = max(0, MAX_SUGGESTED_VALUES - len(problems))
            problems += [_unknown_value(name, one, known, near=True) for one in unknown[:searched]]
            problems += [_unknown_value(name, one, known, near=False) for one in unknown[searched:]]
        if problems:
            raise QueryError(problems)
        return result

    def listed_values(self) -> Mapping[str, Sequence[str]]:
        """Returns the allowed values of each filter whose list can be fetched now."""
        known = {name: self._known(name) for name in _FILTERS}
        return {name: tuple(values.values()) for name, values in known.items() if values}

    def _known(
        self, filter_name: str, max_age: float = LIST_TTL_SECONDS
    ) -> Mapping[str, str] | None:
        """Returns the listed values of a filter, by their comparison form (`filters.fold`).

        Returns None if the list cannot be fetched or has no values.
        """
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


def _values(body: bytes, name: str, member: str) -> list[str]:
    try:
        values = msgspec.json.decode(body)
        if isinstance(values, dict):
            values = values.get(member)
        elif name != member:
            values = []
        return msgspec.convert(values, list[str])
    except msgspec.MsgspecError:
        return []


def _unknown_value(
    filter_name: str, value: str, known: Mapping[str, str], *, near: bool
) -> FieldProblem:
    """Returns the problem of an unknown value; with `near`, the problem suggests similar values."""
    found = difflib.get_close_matches(filters.fold(value), known, n=MAX_SUGGESTIONS) if near else []
    hint = f"did you mean {' or '.join(repr(known[one]) for one in found)}? " if found else ""
    path = LISTS[_FILTERS[filter_name][0]]
    text = f"unknown {filter_name} {value!r}: {hint}GET {path} lists all {len(known)}"
    return problem((filter_name,), text, "unknown_value")
