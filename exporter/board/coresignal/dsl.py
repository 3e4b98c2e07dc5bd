"""Translates a subset of the Elasticsearch query DSL into conditions on the board's tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fastapi.exceptions import HTTPException

from exporter.board.coresignal import filters as coresignal_filters
from exporter.board.search import Condition, all_of, any_of
from exporter.contracts import filters

MAX_QUERY_CHARS, MAX_CLAUSES = 15_000, 1_024
"""Maximum characters and clauses of one query, as the vendor limits them."""
MAX_BOOL_DEPTH = 20
"""Maximum nesting of `bool` clauses."""

_INDUSTRY = "job_industry_collection.job_industry_list.industry"
_TEXT_COLUMNS = {
    **{
        name: coresignal_filters.TEXT_COLUMNS[name]
        for name in ("company_name", "location", "country")
    },
    _INDUSTRY: coresignal_filters.TEXT_COLUMNS["industry"],
}
_NUMBER_COLUMNS = {
    "id": "record_id",
    "company_id": "company_id(company)",
    "application_active": "(NOT expired)",
    "deleted": "0",
}
_TIME_FIELDS = ("created", "last_updated")
_BOUNDS = {"gte": ">=", "gt": ">", "lte": "<=", "lt": "<"}


def condition(body: object) -> Condition:
    """Returns the condition that a posting must meet to match `{"query": clause}`.

    Supported clauses: `match_all`; `bool` with `must`, `filter`, `should`, `must_not` and
    `minimum_should_match` (0 or 1); `match` (with `operator`, by default "or") and `match_phrase`
    for text fields; `term`, `terms` and `range` for numbers and times; `term` and `terms` also for
    `employment_type`. The field names are those of a record. Results are ordered by id, so the only
    valid `sort` is `["id"]`.

    Raises HTTPException 422 that names the unsupported part of the query.
    """
    request = _object(body, "the body", ("query", "sort"))
    if request.get("sort", ["id"]) != ["id"]:
        raise _invalid('sort should be ["id"]: the board has no other order')
    if "query" not in request:
        raise _invalid("query is missing")
    if len(json.dumps(request["query"], ensure_ascii=False)) > MAX_QUERY_CHARS:
        raise _invalid(f"query has more than {MAX_QUERY_CHARS} characters")
    return _QueryParser().clause(request["query"], 0)


class _QueryParser:
    def __init__(self) -> None:
        self._clauses = 0

    def clause(self, found: object, depth: int) -> Condition:
        self._clauses += 1
        if self._clauses > MAX_CLAUSES:
            raise _invalid(f"query has more than {MAX_CLAUSES} clauses")
        if not isinstance(found, dict) or len(found) != 1:
            raise _invalid("a clause should be an object with one member, such as match")
        ((kind, inner),) = found.items()
        if kind == "match_all":
            _object(inner, kind, ("boost",))
            return Condition("1")
        if kind == "bool":
            return self._bool(inner, depth)
        if kind not in ("match", "match_phrase", "term", "terms", "range"):
            raise _invalid(
                f"{kind} is not a clause that the board supports: use bool, match_all, match, "
                "match_phrase, term, terms or range"
            )
        if not isinstance(inner, dict) or len(inner) != 1:
            raise _invalid(f"{kind} should be an object with the name of one field")
        ((field, value),) = inner.items()
        if kind == "range":
            return _range(field, value)
        if kind == "terms":
            if not isinstance(value, list):
                raise _invalid(f"terms.{field} should be a list")
            self._clauses += len(value)
            if self._clauses > MAX_CLAUSES:
                raise _invalid(f"query has more than {MAX_CLAUSES} clauses")
            return any_of(_equal(kind, field, one) for one in value)
        if kind == "term":
            return _equal(kind, field, _unwrapped(kind, field, value, "value"))
        return _match(kind, field, value)

    def _bool(self, found: object, depth: int) -> Condition:
        if depth >= MAX_BOOL_DEPTH:
            raise _invalid(f"bool clauses are nested more than {MAX_BOOL_DEPTH} deep")
        kinds = ("must", "filter", "should", "must_not")
        given = _object(found, "bool", (*kinds, "minimum_should_match"))
        parts: dict[str, list[Condition]] = {}
        for kind in kinds:
            listed = given.get(kind, [])
            clauses = listed if isinstance(listed, list) else [listed]
            parts[kind] = [self.clause(one, depth + 1) for one in clauses]
        wanted = [*parts["must"], *parts["filter"]]
        least = given.get("minimum_should_match", 0 if wanted else 1)
        if type(least) is not int or least not in (0, 1):
            raise _invalid(f"minimum_should_match should be 0 or 1, not {least!r}")
        if parts["should"] and least:
            wanted.append(any_of(parts["should"]))
        # A clause on a missing value is NULL in SQL; the posting must not be excluded by it.
        wanted += [Condition(f"NOT coalesce({p.sql}, 0)", p.values) for p in parts["must_not"]]
        return all_of(wanted)


def _match(kind: str, field: str, value: object) -> Condition:
    text = _unwrapped(kind, field, value, "query")
    if field in _NUMBER_COLUMNS or field in _TIME_FIELDS:
        return _equal(kind, field, text)
    if not isinstance(text, str):
        raise _invalid(f"{kind}.{field} should be a text")
    if field == "employment_type":
        return _equal(kind, field, text)
    operator = str(value.get("operator", "or") if isinstance(value, dict) else "or").lower()
    if operator not in ("and", "or"):
        raise _invalid(f"{kind}.{field}.operator should be 'and' or 'or'")
    plain = text.replace('"', " ")
    wanted = f'"{plain}"'
    if kind == "match":
        joint = " OR " if operator == "or" else " AND "
        wanted = joint.join(f'"{word}"' for word in plain.split()) or wanted
    if field == "title":
        return coresignal_filters.title_contains(wanted)
    if field == "description":
        return coresignal_filters.keywords_contain(wanted)
    if field in _TEXT_COLUMNS:
        return coresignal_filters.text_contains(_TEXT_COLUMNS[field], wanted)
    raise _unsupported(kind, field)


def _equal(kind: str, field: str, value: object) -> Condition:
    if field in _NUMBER_COLUMNS:
        number = value.strip() if isinstance(value, str) else value
        if isinstance(number, str) and number.isascii() and number.isdigit():
            number = int(number)
        return Condition(f"{_NUMBER_COLUMNS[field]} = ?", (_number(kind, field, number),))
    if field in _TIME_FIELDS:
        return coresignal_filters.time_bound("=", _parse_time(kind, field, value, "gte"))
    if field == "employment_type" and isinstance(value, str):
        return coresignal_filters.employment_type_is(value)
    raise _unsupported(kind, field)


def _range(field: str, value: object) -> Condition:
    bounds = _object(value, f"range.{field}", tuple(_BOUNDS))
    found = []
    for name, bound in bounds.items():
        if field in _TIME_FIELDS:
            moment = _parse_time("range", field, bound, name)
            found.append(coresignal_filters.time_bound(_BOUNDS[name], moment))
        elif field in _NUMBER_COLUMNS:
            number = _number("range", field, bound)
            found.append(Condition(f"{_NUMBER_COLUMNS[field]} {_BOUNDS[name]} ?", (number,)))
        else:
            raise _unsupported("range", field)
    return all_of(found)


def _number(kind: str, field: str, value: object) -> int:
    if isinstance(value, bool):
        return int(value)
    if not isinstance(value, int) or not -(2**63) <= value < 2**63:
        raise _invalid(f"{kind}.{field} should be a whole number, not {value!r}")
    return value


def _parse_time(kind: str, field: str, value: object, bound: str) -> str:
    """Returns the time as text in a record's format.

    A day without a time means 23:59:59 for the bounds `lte` and `gt`, else 00:00:00.
    """
    text = value.replace("T", " ").removesuffix("Z") if isinstance(value, str) else ""
    if filters.is_day(text):
        return f"{text} {'23:59:59' if bound in ('lte', 'gt') else '00:00:00'}"
    if filters.is_day(text[:10]) and len(text) == 19:
        return text
    raise _invalid(f"{kind}.{field} should be YYYY-MM-DD or YYYY-MM-DD hh:mm:ss, not {value!r}")


def _unwrapped(kind: str, field: str, value: object, name: str) -> Any:
    if not isinstance(value, dict):
        return value
    known = (name, "operator", "boost") if kind == "match" else (name, "boost")
    found = _object(value, f"{kind}.{field}", known)
    if name not in found:
        raise _invalid(f"{kind}.{field}.{name} is missing")
    return found[name]


def _object(value: object, what: str, known: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _invalid(f"{what} should be an object")
    if other := [name for name in value if name not in known]:
        raise _invalid(f"{what} has {other[0]!r}, which the board does not support")
    return value


def _unsupported(kind: str, field: str) -> HTTPException:
    return _invalid(f"{kind} of {field!r} is not supported by the board")


def _invalid(text: str) -> HTTPException:
    return HTTPException(422, text)
