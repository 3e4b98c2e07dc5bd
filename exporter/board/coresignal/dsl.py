"""A part of the Elasticsearch query language as conditions on the board's tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fastapi.exceptions import HTTPException

from exporter.board.coresignal import filters as coresignal_filters
from exporter.board.search import Condition, all_of, any_of
from exporter.contracts import filters

MOST_CHARACTERS, MOST_CLAUSES = 15_000, 1_024
"""The vendor's bounds of one query."""
DEEPEST = 20
"""Bool clauses in bool clauses."""

_INDUSTRY = "job_industry_collection.job_industry_list.industry"
_TEXTS = {
    **{name: coresignal_filters.TEXTS[name] for name in ("company_name", "location", "country")},
    _INDUSTRY: coresignal_filters.TEXTS["industry"],
}
_NUMBERS = {
    "id": "record_id",
    "company_id": "company_id(company)",
    "application_active": "(NOT expired)",
    "deleted": "0",
}
_MOMENTS = ("created", "last_updated")
_BOUNDS = {"gte": ">=", "gt": ">", "lte": "<=", "lt": "<"}


def condition(body: object) -> Condition:
    """What a posting has to meet for `{"query": clause}`.

    Clauses: `match_all`; `bool` of `must`, `filter`, `should`, `must_not` and
    `minimum_should_match` (0 or 1); `match` (with `operator`, by default "or") and `match_phrase`
    of texts; `term`, `terms` and `range` of numbers and times, `term` and `terms` also of
    `employment_type`. The fields are those of a record. The order is by id, so a `sort` may ask for
    nothing else.

    Raises HTTPException 422, which names what the board does not know.
    """
    asked = _object(body, "the body", ("query", "sort"))
    if asked.get("sort", ["id"]) != ["id"]:
        raise _refused('sort should be ["id"]: the board has no other order')
    if "query" not in asked:
        raise _refused("query is missing")
    if len(json.dumps(asked["query"], ensure_ascii=False)) > MOST_CHARACTERS:
        raise _refused(f"query has more than {MOST_CHARACTERS} characters")
    return _Reading().clause(asked["query"], 0)


class _Reading:
    def __init__(self) -> None:
        self._clauses = 0

    def clause(self, found: object, depth: int) -> Condition:
        self._clauses += 1
        if self._clauses > MOST_CLAUSES:
            raise _refused(f"query has more than {MOST_CLAUSES} clauses")
        if not isinstance(found, dict) or len(found) != 1:
            raise _refused("a clause should be an object with one member, such as match")
        ((kind, inner),) = found.items()
        if kind == "match_all":
            _object(inner, kind, ("boost",))
            return Condition("1")
        if kind == "bool":
            return self._bool(inner, depth)
        if kind not in ("match", "match_phrase", "term", "terms", "range"):
            raise _refused(
                f"{kind} is no clause that the board knows: bool, match_all, match, match_phrase, "
                "term, terms, range"
            )
        if not isinstance(inner, dict) or len(inner) != 1:
            raise _refused(f"{kind} should be an object with the name of one field")
        ((field, value),) = inner.items()
        if kind == "range":
            return _range(field, value)
        if kind == "terms":
            if not isinstance(value, list):
                raise _refused(f"terms.{field} should be a list")
            self._clauses += len(value)
            if self._clauses > MOST_CLAUSES:
                raise _refused(f"query has more than {MOST_CLAUSES} clauses")
            return any_of(_equal(kind, field, one) for one in value)
        if kind == "term":
            return _equal(kind, field, _inner(kind, field, value, "value"))
        return _match(kind, field, value)

    def _bool(self, found: object, depth: int) -> Condition:
        if depth >= DEEPEST:
            raise _refused(f"bool stands more than {DEEPEST} deep")
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
            raise _refused(f"minimum_should_match should be 0 or 1, not {least!r}")
        if parts["should"] and least:
            wanted.append(any_of(parts["should"]))
        # What is unknown of a posting is not forbidden to it.
        wanted += [Condition(f"NOT coalesce({p.sql}, 0)", p.values) for p in parts["must_not"]]
        return all_of(wanted)


def _match(kind: str, field: str, value: object) -> Condition:
    text = _inner(kind, field, value, "query")
    if field in _NUMBERS or field in _MOMENTS:
        return _equal(kind, field, text)
    if not isinstance(text, str):
        raise _refused(f"{kind}.{field} should be a text")
    if field == "employment_type":
        return _equal(kind, field, text)
    operator = str(value.get("operator", "or") if isinstance(value, dict) else "or").lower()
    if operator not in ("and", "or"):
        raise _refused(f"{kind}.{field}.operator should be and, or")
    plain = text.replace('"', " ")
    wanted = f'"{plain}"'
    if kind == "match":
        joint = " OR " if operator == "or" else " AND "
        wanted = joint.join(f'"{word}"' for word in plain.split()) or wanted
    if field == "title":
        return coresignal_filters.titled(wanted)
    if field == "description":
        return coresignal_filters.described(wanted)
    if field in _TEXTS:
        return coresignal_filters.says(_TEXTS[field], wanted)
    raise _unknown(kind, field)


def _equal(kind: str, field: str, value: object) -> Condition:
    if field in _NUMBERS:
        number = value.strip() if isinstance(value, str) else value
        if isinstance(number, str) and number.isascii() and number.isdigit():
            number = int(number)
        return Condition(f"{_NUMBERS[field]} = ?", (_number(kind, field, number),))
    if field in _MOMENTS:
        return coresignal_filters.moment("=", _moment(kind, field, value, "gte"))
    if field == "employment_type" and isinstance(value, str):
        return coresignal_filters.employed(value)
    raise _unknown(kind, field)


def _range(field: str, value: object) -> Condition:
    bounds = _object(value, f"range.{field}", tuple(_BOUNDS))
    found = []
    for name, bound in bounds.items():
        if field in _MOMENTS:
            moment = _moment("range", field, bound, name)
            found.append(coresignal_filters.moment(_BOUNDS[name], moment))
        elif field in _NUMBERS:
            number = _number("range", field, bound)
            found.append(Condition(f"{_NUMBERS[field]} {_BOUNDS[name]} ?", (number,)))
        else:
            raise _unknown("range", field)
    return all_of(found)


def _number(kind: str, field: str, value: object) -> int:
    if isinstance(value, bool):
        return int(value)
    if not isinstance(value, int) or not -(2**63) <= value < 2**63:
        raise _refused(f"{kind}.{field} should be a whole number, not {value!r}")
    return value


def _moment(kind: str, field: str, value: object, bound: str) -> str:
    """A day stands for its end where it bounds from above, else for its beginning."""
    text = value.replace("T", " ").removesuffix("Z") if isinstance(value, str) else ""
    if filters.is_day(text):
        return f"{text} {'23:59:59' if bound in ('lte', 'gt') else '00:00:00'}"
    if filters.is_day(text[:10]) and len(text) == 19:
        return text
    raise _refused(f"{kind}.{field} should be YYYY-MM-DD or YYYY-MM-DD hh:mm:ss, not {value!r}")


def _inner(kind: str, field: str, value: object, name: str) -> Any:
    if not isinstance(value, dict):
        return value
    known = (name, "operator", "boost") if kind == "match" else (name, "boost")
    found = _object(value, f"{kind}.{field}", known)
    if name not in found:
        raise _refused(f"{kind}.{field}.{name} is missing")
    return found[name]


def _object(value: object, what: str, known: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _refused(f"{what} should be an object")
    if other := [name for name in value if name not in known]:
        raise _refused(f"{what} has {other[0]!r}, which the board does not know")
    return value


def _unknown(kind: str, field: str) -> HTTPException:
    return _refused(f"{kind} of {field!r} is nothing that the board knows")


def _refused(text: str) -> HTTPException:
    return HTTPException(422, text)
