"""Translates a job search into a condition on the board's tables."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from exporter.board import words
from exporter.board.postings import key, label_key
from exporter.contracts import filters, hirebase

_KM = {"mi": 1.609344, "km": 1.0, "degrees": 111.195}


class UnsupportedFilter(ValueError):
    """The board cannot apply a filter, so it rejects the search instead of ignoring the filter."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class Condition(NamedTuple):
    """An SQL condition on a row of `postings`, with the values of its placeholders."""

    sql: str
    values: tuple[object, ...] = ()


def condition(search: hirebase.JobSearch, now: datetime) -> Condition:
    """Returns the condition that a posting must meet: all filters of the search at once.

    - `job_titles`, `keywords` (description, requirements, technologies, skills, benefits) and
      `company_keywords` (description and services of the company): at least one entry must match,
      with all its words in any order. `-word` excludes postings with the word: from the matches of
      its entry, or from all matches if the entry has only such words. A title entry in double
      quotes must occur as a phrase. Words are runs of letters, digits, `+` and `#`; case and
      accents do not matter.
    - Companies, slugs, boards, categories and industries match by their whole value, in any case.
    - A posting without years, salary or date does not match a filter on the missing value, unless
      `include_yoe` or `include_no_salary` is true. Ranges match if they overlap.
    - Flags: false means the same as absent. Expired postings are found only with `include_expired`.
      `filter_incomplete_jobs` excludes postings without title, company or description.
    - A location without coordinates is compared by its names, because the board has no map data. A
      location with coordinates is a circle, or a box in mode `box`; a `bbox` is a box in mode `box`
      or if there are no coordinates. Mode `strict` requires the names as well as the area; mode
      `weak` requires one of the two.
    - `return_raw_description` has no effect, because postings are served whole, nor has `user_id`.

    Raises UnsupportedFilter for a filter that the board cannot apply.
    """
    return all_of(
        [
            *_texts(search),
            *_lists(search),
            *_dates(search, now),
            *_pay_and_years(search),
            *_places(search),
            *_flags(search),
        ]
    )


def all_of(parts: Iterable[Condition]) -> Condition:
    """Returns the condition that all parts are true; true without parts."""
    return _joined(list(parts), "AND", "1")


def any_of(parts: Iterable[Condition]) -> Condition:
    """Returns the condition that at least one part is true; false without parts."""
    return _joined(list(parts), "OR", "0")


def _joined(parts: Sequence[Condition], word: str, empty: str) -> Condition:
    if not parts:
        return Condition(empty)
    if len(parts) == 1:
        return parts[0]
    # Joins in halves: SQLite rejects expressions nested 1,000 deep, as a plain chain would be.
    middle = len(parts) // 2
    left, right = (_joined(half, word, empty) for half in (parts[:middle], parts[middle:]))
    return Condition(f"({left.sql} {word} {right.sql})", left.values + right.values)


def _texts(search: hirebase.JobSearch) -> list[Condition]:
    found = []
    for entries, table in (
        (search.job_titles, "titles"),
        (search.keywords, "words"),
        (search.company_keywords, "company_words"),
    ):
        if entries:
            found += _word_conditions(filters.as_list(entries), table)
    return found


def _word_conditions(entries: list[str], table: str) -> list[Condition]:
    wanted, unwanted, positive = [], [], False
    for entry in entries:
        if table == "titles" and len(entry) > 2 and entry[0] == entry[-1] == '"':
            positive = True
            if tokens := words.tokens(entry):
                wanted.append(f'"{" ".join(tokens)}"')
            continue
        parts = entry.replace('"', " ").split()
        without = [part for part in parts if len(part) > 1 and part[0] == "-"]
        present = [token for part in parts if part not in without for token in words.tokens(part)]
        absent = list(filter(None, (_all_words(words.tokens(part[1:])) for part in without)))
        if len(without) == len(parts):
            unwanted += absent
            continue
        positive = True
        if present:
            wanted.append(f"({' NOT '.join([_all_words(present), *absent])})")
    found = []
    if positive and not wanted:
        found.append(Condition("0"))
    elif wanted:
        found.append(_indexed(table, wanted, "IN"))
    if unwanted:
        found.append(_indexed(table, unwanted, "NOT IN"))
    return found


def _all_words(tokens: list[str]) -> str:
    quoted = [f'"{token}"' for token in tokens]
    return f"({' AND '.join(quoted)})" if quoted else ""


def _indexed(table: str, alternatives: list[str], operator: str) -> Condition:
    return Condition(
        f"number {operator} (SELECT rowid FROM {table} WHERE {table} MATCH ?)",  # noqa: S608
        (" OR ".join(alternatives),),
    )


def _lists(search: hirebase.JobSearch) -> list[Condition]:
    found = []
    for entries, column, condition_of in (
        (search.company_names, "company", _one_of),
        (search.company_slugs, "company_slug", _one_of),
        (search.job_slug, "job_slug", _one_of),
        (search.job_board, "job_board", _one_of),
        (search.job_category, "job_category", _contains_any),
        (search.industry, "industry", _contains_any),
        (search.sub_industry, "sub_industry", _contains_any),
    ):
        if entries:
            found.append(condition_of(column, [key(one) for one in filters.as_list(entries)]))
    for entries, column, condition_of in (
        (search.job_types, "job_types", _contains_any),
        (search.location_types, "location_types", _contains_any),
        (search.experience, "experience", _one_of),
        (search.experience_levels, "experience", _one_of),
    ):
        if entries:
            labels = [label_key(column, one) for one in filters.as_list(entries)]
            found.append(condition_of(column, labels))
    if search.company_types:
        found.append(any_of(_size(entry) for entry in filters.as_list(search.company_types)))
    if search.location_group:
        found.append(_one_of("location_group", [filters.fold(search.location_group)]))
    return found


def _one_of(column: str, values: list[str]) -> Condition:
    return Condition(
        f"{column} IN (SELECT value FROM json_each(?))",  # noqa: S608
        (json.dumps(values),),
    )


def _contains_any(column: str, values: list[str]) -> Condition:
    return any_of(Condition(f"instr({column}, ?)", (f"|{value}|",)) for value in values)


def _size(entry: str) -> Condition:
    bounds = re.fullmatch(
        r"\s*([0-9]{1,9})\s*(?:[-–]\s*([0-9]{1,9})|\+)\s*", entry.replace(",", "")
    )
    if not bounds:
        raise UnsupportedFilter(
            "company_types", f"A company size such as 11-50 or 1000+, not {entry!r}"
        )
    smallest, largest = int(bounds[1]), int(bounds[2]) if bounds[2] else None
    return _overlap("size", smallest, largest)


def _overlap(name: str, low: float | None, high: float | None) -> Condition:
    parts = [_stated(name)]
    if low is not None:
        parts.append(Condition(f"coalesce({name}_max, 9e999) >= ?", (low,)))
    if high is not None:
        parts.append(Condition(f"coalesce({name}_min, -9e999) <= ?", (high,)))
    return all_of(parts)


def _stated(name: str) -> Condition:
    return Condition(f"coalesce({name}_min, {name}_max) IS NOT NULL")


def _dates(search: hirebase.JobSearch, now: datetime) -> list[Condition]:
    found = []
    if first := search.canonical(now).get("date_posted"):
        found.append(Condition("posted >= ?", (first,)))
    if search.month:
        found.append(Condition("substr(posted, 1, 7) = ?", (search.month,)))
    return found


def _pay_and_years(search: hirebase.JobSearch) -> list[Condition]:
    found = []
    years, salary = search.yoe or hirebase.Range(), search.salary or hirebase.Salary()
    if years.min is not None or years.max is not None:
        wanted = _overlap("yoe", years.min, years.max)
        found.append(_unless_unstated("yoe", wanted) if search.include_yoe else wanted)
    parts = []
    if salary.min is not None or salary.max is not None:
        parts.append(_overlap("salary", salary.min, salary.max))
    if currency := search.currency or salary.currency:
        parts += [_stated("salary"), Condition("currency = ?", (currency.upper(),))]
    if salary.period:
        parts += [_stated("salary"), Condition("period = ?", (filters.fold(salary.period),))]
    if parts:
        wanted = all_of(parts)
        found.append(_unless_unstated("salary", wanted) if search.include_no_salary else wanted)
    return found


def _unless_unstated(name: str, wanted: Condition) -> Condition:
    return any_of([wanted, Condition(f"NOT ({_stated(name).sql})")])


def _flags(search: hirebase.JobSearch) -> list[Condition]:
    if search.hide_seen_jobs:
        raise UnsupportedFilter(
            "hide_seen_jobs", "The board does not know who has seen which postings"
        )
    asked = (
        (not search.include_expired, "NOT expired"),
        (search.visa, "visa"),
        (search.hide_recruiting_agencies, "NOT agency"),
        (search.filter_incomplete_jobs, "NOT incomplete"),
    )
    return [Condition(sql) for wanted, sql in asked if wanted]


def _places(search: hirebase.JobSearch) -> list[Condition]:
    near = search.geofilter_params or hirebase.GeoFilter()
    if not search.geo_locations:
        return []
    place = any_of(_place(location, near) for location in search.geo_locations)
    sql = f"number IN (SELECT number FROM places WHERE {place.sql})"  # noqa: S608
    return [Condition(sql, place.values)]


def _place(location: hirebase.Location, near: hirebase.GeoFilter) -> Condition:
    named = [
        Condition(f"({part} = ? OR instr(parts, ?))", (key(name), f"|{key(name)}|"))
        for part, name in (
            ("city", location.city),
            ("region", location.region),
            ("country", location.country),
        )
        if name
    ]
    if location.address:
        named.append(Condition("instr(address, ?)", (key(location.address),)))
    area = _area(location, near)
    if area is None:
        return all_of(named)
    if near.mode == "strict":
        return all_of([*named, area])
    if near.mode == "weak" and named:
        return any_of([all_of(named), area])
    return area


def _area(location: hirebase.Location, near: hirebase.GeoFilter) -> Condition | None:
    if location.bbox and (near.mode == "box" or not location.coordinates):
        west, south, east, north = location.bbox
        within = "longitude BETWEEN ? AND ?"
        if west > east:  # the box crosses the 180th meridian
            within = "(longitude >= ? OR longitude <= ?)"
        return Condition(f"({within} AND latitude BETWEEN ? AND ?)", (west, east, south, north))
    if not location.coordinates:
        return None
    longitude, latitude = location.coordinates.coordinates
    reach = near.radius * _KM[near.unit]
    if near.mode != "box":
        return Condition("kilometres(longitude, latitude, ?, ?) <= ?", (longitude, latitude, reach))
    north = reach / _KM["degrees"]
    east = north / max(math.cos(math.radians(latitude)), 1e-6)
    return Condition(
        "(abs(longitude - ?) <= ? AND abs(latitude - ?) <= ?)", (longitude, east, latitude, north)
    )


def kilometres(
    longitude: float | None, latitude: float | None, to_longitude: float, to_latitude: float
) -> float | None:
    """Returns the great-circle distance of two points, whose coordinates are in degrees.

    Returns None if the first point has no longitude or no latitude.
    """
    if longitude is None or latitude is None:
        return None
    here, there = math.radians(latitude), math.radians(to_latitude)
    half = math.radians(to_longitude - longitude) / 2
    square = (
        math.sin((there - here) / 2) ** 2 + math.cos(here) * math.cos(there) * math.sin(half) ** 2
    )
    return 2 * 6371.0088 * math.asin(min(1.0, math.sqrt(square)))
