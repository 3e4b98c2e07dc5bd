"""The Hirebase searches: validation, the echo in the task object, and the canonical form.

The vendor's documentation, examples and official client spell some filters differently. Every
documented spelling is accepted; the canonical form has one spelling.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from exporter.contracts.described import Filter, describe
from exporter.contracts.filters import (
    MAX_ENTRIES,
    Day,
    Flag,
    Month,
    Number,
    Shown,
    Strict,
    Text,
    Texts,
    as_list,
    fold,
    refuse,
)
from exporter.contracts.timestamps import Moment

_FULL_TIME, _PART_TIME, _IN_PERSON = "Full-time", "Part-time", "In-Person"
_LABELS: Mapping[str, Mapping[str, str]] = {
    "job_types": {
        "fulltime": _FULL_TIME,
        "permanentfulltime": _FULL_TIME,
        "parttime": _PART_TIME,
        "contract": "Contract",
        "contractor": "Contract",
        "intern": "Internship",
        "internship": "Internship",
    },
    "location_types": {
        "remote": "Remote",
        "hybrid": "Hybrid",
        "inperson": _IN_PERSON,
        "onsite": _IN_PERSON,
    },
    "experience": {
        name.casefold() + suffix: name
        for name in ("Entry", "Junior", "Mid", "Senior", "Executive")
        for suffix in ("", "level")
    },
}

# Left: the name that the official client sends, and the only name in the canonical form. Right: the
# documentation's other name for the same filter.
_SPELLINGS: Mapping[str, str] = {
    "company_names": "company_name",
    "company_slugs": "company_slug",
    "geo_locations": "locations",
    "job_types": "job_type",
}


def _labelled(filter_name: str) -> Shown:
    return Shown("texts", tuple(dict.fromkeys(_LABELS[filter_name].values())))


# fmt: off
_ECHOED = (
    "job_titles", "keywords", "location_group", "location_types", "geo_locations", "experience",
    "yoe", "include_yoe", "company_types", "company_name", "date_posted", "days_ago", "month",
    "salary", "include_no_salary", "currency", "job_types", "job_category", "industry",
    "sub_industry", "visa", "include_expired", "hide_seen_jobs", "user_id", "company_slug",
    "job_slug", "job_board", "sort_by", "sort_order", "page", "limit",
)
# fmt: on


def label(filter_name: str, value: str) -> str:
    """Returns the vendor's label for any spelling of a known value; other values are unchanged.

    `filter_name` is `job_types`, `location_types` or `experience`; other filters have no labels.
    `On-site` (official client) and `In-Person` (documentation) have the same label.

    >>> label("job_types", "full_time"), label("location_types", "On-site")
    ('Full-time', 'In-Person')
    """
    labels = _LABELS.get(filter_name)
    return labels.get(fold(value), value) if labels else value


class Range(Strict):
    """An inclusive range; an open bound is left out or null."""

    min: Number | None = None
    max: Number | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min is not None and self.max is not None and self.min > self.max:
            refuse("range_order", f"min {self.min:g} is greater than max {self.max:g}")
        return self


class Salary(Range):
    """A salary range, optionally in one `currency` and per one `period`."""

    currency: Text = None
    period: Text = None


class Point(Strict):
    """A GeoJSON point: longitude first, in degrees. A bare `[lon, lat]` list is refused."""

    type: Literal["Point"]
    coordinates: tuple[
        Annotated[Number, Field(ge=-180, le=180)], Annotated[Number, Field(ge=-90, le=90)]
    ]


class Location(Strict):
    """A place; a posting matches only if every given part of the place matches."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    city: Text = None
    region: Text = None
    country: Text = None
    address: Text = None
    coordinates: Point | None = None
    bbox: tuple[Number, Number, Number, Number] | None = Field(
        None, description="West, south, east, north, in degrees."
    )

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if not self.model_dump(exclude_none=True):
            refuse("empty_location", "a location must name a city, a region or a country")
        return self


class GeoFilter(Strict):
    """The maximum distance of a posting from a location of `geo_locations`."""

    mode: Literal["auto", "weak", "strict", "box"] = "auto"
    radius: Annotated[Number, Field(ge=0)] = 25.0
    unit: Literal["mi", "km", "degrees"] = "mi"


class JobSearch(Strict):
    """The filters of the vendor's job search, in any documented spelling; others are refused.

    - Two spellings of one filter (`locations` and `geo_locations`, `job_type` and `job_types`,
      `company_name(s)`, `company_slug(s)`) may both be given only with equal values. After
      validation the plural name (or `geo_locations`) has the value of either spelling.
    - Every list also accepts one text; an empty list or a null is an absent filter.
    - Flags are the strings `"true"` and `"false"` in any case, or real booleans.
    - `limit` has no upper bound here: in an export it is the number of records wanted.
    - Numbers are finite numbers; a number in a string is refused.

    Raises pydantic.ValidationError. An unknown filter has the error type `extra_forbidden`.
    """

    job_titles: Texts = Field(
        None,
        description='Any entry matches; all words of an entry, in any order; "-word" excludes;'
        " an entry in double quotes is exact.",
    )
    keywords: Texts = Field(None, description='Any entry matches; "-word" excludes.')
    company_keywords: Texts = Field(
        None, description="Words of the description and services of the company."
    )
    company_name: Texts = Field(None, description="Whole name of the company, in any case.")
    company_names: Texts = Field(None, description="Whole name of the company, in any case.")
    company_slug: Texts = Field(None, description="Slug of the company.")
    company_slugs: Texts = Field(None, description="Slug of the company.")
    company_types: Texts = Field(None, description="Company sizes, such as 11-50.")
    locations: Annotated[list[Location], Field(max_length=MAX_ENTRIES, fail_fast=True)] | None = (
        Field(None, description="Places, any of which matches.")
    )
    geo_locations: Annotated[
        Annotated[list[Location], Field(max_length=MAX_ENTRIES, fail_fast=True)] | None,
        Shown("places"),
    ] = Field(None, description="Places, any of which matches.")
    geofilter_params: GeoFilter | None = Field(None, description="Distance from the places.")
    location_group: Text = Field(None, description="Such as Bay_Area.")
    location_types: Annotated[Texts, _labelled("location_types")] = Field(
        None, description="Remote, Hybrid, In-Person (or On-site)."
    )
    experience: Annotated[Texts, _labelled("experience")] = Field(
        None, description="Entry, Junior, Mid, Senior, Executive."
    )
    experience_levels: Texts = None
    yoe: Range | None = Field(None, description="Years of experience.")
    include_yoe: Flag = Field(
        None, description="true: also postings that state no years of experience."
    )
    salary: Salary | None = Field(None, description="Salaries that overlap the posting's range.")
    include_no_salary: Flag = Field(None, description="true: also postings that state no salary.")
    currency: Text = Field(None, description="Currency of the salary, such as USD.")
    job_type: Texts = None
    job_types: Annotated[Texts, _labelled("job_types")] = Field(
        None, description="Full-time, Part-time, Contract, Internship."
    )
    job_category: Texts = Field(None, description="Such as Engineering.")
    industry: Texts = Field(None, description="Industry of the company.")
    sub_industry: Texts = Field(None, description="Part of the industry.")
    job_board: Texts = Field(None, description="Board on which the posting was found.")
    job_slug: Text = Field(None, description="Slug of the posting.")
    date_posted: Day = Field(
        None,
        description="Posted on or after this day, YYYY-MM-DD.",
        json_schema_extra={"format": "date"},
    )
    days_ago: Annotated[int, Field(strict=True, ge=0, le=36_500)] | None = Field(
        None, description="Posted within so many days before the request."
    )
    month: Month = Field(
        None,
        description="Posted in this month, YYYY-MM.",
        json_schema_extra={"pattern": "^[12][0-9]{3}-(0[1-9]|1[0-2])$"},
    )
    visa: Flag = Field(None, description="true: only postings that sponsor a visa.")
    include_expired: Flag = Field(None, description="true: also expired postings.")
    hide_seen_jobs: Flag = Field(None, description="true: without postings that the user has seen.")
    user_id: Text = None
    hide_recruiting_agencies: Flag = Field(
        None, description="true: without postings of recruiting agencies."
    )
    filter_incomplete_jobs: Flag = Field(
        None, description="true: without postings that lack a title, a company or a description."
    )
    return_raw_description: Flag = None
    sort_by: Literal["relevance", "date_posted", "salary", "company", "yoe"] | None = Field(
        None, description="What the postings are sorted by."
    )
    sort_order: Literal["asc", "desc"] | None = Field(None, description="Ascending or descending.")
    page: Annotated[int, Field(strict=True, ge=1)] | None = Field(
        None, description="Page of a search.", json_schema_extra={"minimum": 1}
    )
    limit: Annotated[int, Field(strict=True, ge=1)] | None = Field(
        None,
        description="Postings on a page of a search, or in an export.",
        json_schema_extra={"minimum": 1},
    )

    @model_validator(mode="after")
    def _one_value_each(self) -> Self:
        for name, other in _SPELLINGS.items():
            here, there = getattr(self, name), getattr(self, other)
            if there is None:
                continue
            if here is None:
                setattr(self, name, there)
            elif _plain(name, here) != _plain(name, there):
                refuse(
                    "two_spellings",
                    f"{other} and {name} are two spellings of one filter and differ: send one",
                )
        inner = self.salary.currency if self.salary else None
        if inner and self.currency and inner.upper() != self.currency.upper():
            refuse("two_spellings", "salary.currency and currency differ: send one")
        return self

    def echo(self) -> dict[str, Any]:
        """Returns the search for the task object: 31 keys in the vendor's order, absent ones null.

        Texts are as sent, numbers of ranges are floats, flags are the strings `"true"` and
        `"false"`. A filter sent in its other spelling has the name that the vendor echoes. Given
        filters outside the 31 keys follow these keys, so that the echo has the whole request.
        """
        echoed: dict[str, Any] = dict.fromkeys(_ECHOED)
        for name, value in vars(self).items():
            if value is not None and name in _ECHO_KEYS:
                echoed[_ECHO_KEYS[name]] = _echoed(value)
        return echoed

    def canonical(self, now: datetime) -> dict[str, Any]:
        """Returns the canonical form of the search: the same dict for all its spellings.

        This dict is stored and sent upstream. It has only the given filters, in a fixed order, with
        the official client's names and shapes: lists without repetitions for filters with several
        values; flags as `"true"` and `"false"`; known labels in one spelling; `salary.currency` as
        `currency`. `JobSearch(**canonical)` is valid and has an equal canonical dict.

        `page` and `limit` are left out: they bound the rows that are read and do not change which
        rows match.

        An explicit `"false"` is kept, although the official client leaves false flags out.

        `days_ago` becomes the day in UTC that is so many days before `now`, so that an export that
        continues after midnight keeps the same bound. The vendor's `date_posted` means "on or
        after", so if both filters are given, the later day is kept. Raises ValueError if `now` has
        no time zone.
        """
        if now.tzinfo is None:
            raise ValueError(f"now must have a time zone: {now.isoformat()}")
        given = dict(vars(self))
        currency = self.currency or (self.salary.currency if self.salary else None)
        if currency is not None:
            given["currency"] = currency.upper()
        if self.days_ago is not None:
            bound = now.astimezone(UTC).date() - timedelta(days=self.days_ago)
            given["date_posted"] = max(self.date_posted or "", bound.isoformat())
        return {
            name: plain
            for name, value in given.items()
            if value is not None and name not in _NOT_CANONICAL
            if (plain := _plain(name, value)) not in (None, [], {})
        }


FILTERS: tuple[Filter, ...] = describe(JobSearch, without={*_SPELLINGS.values(), "page", "limit"})
"""The filters of `JobSearch`, each in one spelling; an export has its own limit."""


class ExpiredSearch(Strict):
    """The search for postings that expired at `expired_since` or later.

    With `limit`, at most that many postings are returned.
    """

    model_config = ConfigDict(strict=True)

    expired_since: Moment
    limit: int | None = Field(None, ge=1)


_SEVERAL = frozenset(
    name
    for name, field in JobSearch.model_fields.items()
    if field.annotation == str | list[str] | None
)
_ECHO_KEYS: Mapping[str, str] = {
    name: _SPELLINGS[name] if name in ("company_names", "company_slugs") else name
    for name in JobSearch.model_fields
    if name not in _SPELLINGS.values()
}
"""Name in the echo of each filter; of two spellings of a filter, the one that holds the value."""
_NOT_CANONICAL = frozenset({*_SPELLINGS.values(), "days_ago", "page", "limit"})


def _echoed(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_none=True, exclude_unset=True)
    if isinstance(value, list):
        return [_echoed(entry) for entry in value]
    return value


def _plain(name: str, value: Any) -> Any:
    """Returns a filter's value in its canonical shape; None for an absent filter."""
    if value is None:
        return None
    if name in _SEVERAL:
        return list(dict.fromkeys(label(name, text) for text in as_list(value)))
    if isinstance(value, GeoFilter):
        return value.model_dump()
    if isinstance(value, Salary):
        return value.model_dump(exclude_none=True, exclude={"currency"})
    if isinstance(value, list):
        return [_plain(name, entry) for entry in value]
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_none=True)
    return _echoed(value)
