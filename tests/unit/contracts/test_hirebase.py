"""Tests of the Hirebase job search: echo, canonical form, and refusals."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hirebase.models.jobs import JobQuery
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from exporter.contracts.hirebase import JobSearch
from exporter.core import canonical

NOW = datetime(2025, 6, 13, 6, 10, 7, tzinfo=UTC)

# fmt: off
ECHO_KEYS = [
    "job_titles", "keywords", "location_group", "location_types", "geo_locations", "experience",
    "yoe", "include_yoe", "company_types", "company_name", "date_posted", "days_ago", "month",
    "salary", "include_no_salary", "currency", "job_types", "job_category", "industry",
    "sub_industry", "visa", "include_expired", "hide_seen_jobs", "user_id", "company_slug",
    "job_slug", "job_board", "sort_by", "sort_order", "page", "limit",
]
# fmt: on

DOCUMENTED: dict[str, Any] = {
    "job_titles": ["Site/Civil Engineer"],
    "geo_locations": [{"city": "Richmond", "region": "Virginia", "country": "United States"}],
    "yoe": {"min": 1, "max": 6},
    "company_name": "CompanyXYZ",
    "job_types": ["Full-time"],
    "industry": ["Design", "Construction"],
    "sub_industry": ["Architecture", "Building Construction"],
    "visa": "true",
    "sort_by": "relevance",
    "sort_order": "desc",
    "page": 1,
    "limit": 10,
}


def searched(**fields: Any) -> JobSearch:
    return JobSearch.model_validate(fields)


def canonical_of(**search: Any) -> dict[str, Any]:
    return searched(**search).canonical(NOW)


def error(**search: Any) -> tuple[tuple[Any, ...], str, str]:
    with pytest.raises(ValidationError) as caught:
        searched(**search)
    [only] = caught.value.errors()
    return only["loc"], only["msg"], only["type"]


def test_the_documented_search_is_echoed_with_its_31_keys_in_the_documented_order() -> None:
    # Given
    search = searched(**DOCUMENTED)
    # When
    echoed = search.echo()
    # Then
    assert list(echoed) == ECHO_KEYS
    given_filters = {key: value for key, value in echoed.items() if value is not None}
    assert given_filters == DOCUMENTED
    assert '"min": 1.0' in json.dumps(echoed["yoe"])


def test_an_empty_search_is_echoed_as_31_nulls_and_has_an_empty_canonical_dict() -> None:
    # Given
    search = searched()
    # When
    echoed, stored = search.echo(), search.canonical(NOW)
    # Then
    assert echoed == dict.fromkeys(ECHO_KEYS)
    assert stored == {}


def test_filters_outside_the_documented_echo_follow_it_when_they_are_given() -> None:
    # Given
    search = searched(company_keywords=["robots"], hide_recruiting_agencies=True)
    # When
    echoed = search.echo()
    # Then
    assert list(echoed) == [*ECHO_KEYS, "company_keywords", "hide_recruiting_agencies"]
    assert echoed["company_keywords"] == ["robots"]
    assert echoed["hide_recruiting_agencies"] == "true"


def test_the_echo_keeps_the_sent_spelling_and_the_canonical_search_has_one_label() -> None:
    # Given
    search = searched(job_type=["full_time"], location_types=["On-site"], experience="entry level")
    # When
    echoed, stored = search.echo(), search.canonical(NOW)
    # Then
    assert echoed["job_types"] == ["full_time"]
    assert echoed["location_types"] == ["On-site"]
    assert echoed["experience"] == "entry level"
    assert stored == {
        "location_types": ["In-Person"],
        "experience": ["Entry"],
        "job_types": ["Full-time"],
    }


def test_an_echo_is_a_valid_search_with_the_same_canonical_form() -> None:
    # Given
    search = searched(**DOCUMENTED, days_ago=3, geofilter_params={"radius": 5})
    # When
    again = searched(**search.echo())
    # Then
    assert again.echo() == search.echo()
    assert again.canonical(NOW) == search.canonical(NOW)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"locations": [{"city": "Rome"}]}, {"geo_locations": [{"city": "Rome"}]}),
        ({"job_type": ["Full Time"]}, {"job_types": ["Full-time"]}),
        ({"job_type": "full_time"}, {"job_types": ["FULL TIME", "fulltime"]}),
        ({"location_types": ["On-site"]}, {"location_types": ["in-person"]}),
        ({"company_name": "Ängström"}, {"company_names": ["Ängström"]}),
        ({"company_slug": "acme"}, {"company_slugs": ["acme"]}),
        ({"industry": "Design"}, {"industry": ["Design"]}),
        ({"job_board": "Lever"}, {"job_board": ["Lever", "Lever"]}),
        ({"visa": True}, {"visa": "TRUE"}),
        ({"include_expired": False}, {"include_expired": "False"}),
        ({"days_ago": 3}, {"date_posted": "2025-06-10"}),
        ({"salary": {"min": 1, "currency": "usd"}}, {"salary": {"min": 1.0}, "currency": "USD"}),
        ({"keywords": []}, {"keywords": None}),
        ({"yoe": {"min": None}}, {}),
        ({"page": 3, "limit": 5}, {}),
        ({"geofilter_params": {}}, {"geofilter_params": {"mode": "auto", "radius": 25}}),
    ],
)
def test_two_spellings_of_one_search_have_one_canonical_dict_and_one_digest(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    # Given
    first, second = canonical_of(**one), canonical_of(**other)
    # When
    digests = {canonical.digest(first), canonical.digest(second)}
    # Then
    assert json.dumps(first) == json.dumps(second)
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("documented", "sent", "values"),
    [
        ("locations", "geo_locations", ([{"city": "Rome"}], [{"city": "Oslo"}])),
        ("job_type", "job_types", (["Contract"], ["Internship"])),
        ("company_name", "company_names", ("A", ["A", "B"])),
        ("company_slug", "company_slugs", ("a", ["b"])),
    ],
)
def test_two_spellings_that_differ_are_refused_by_both_names(
    documented: str, sent: str, values: tuple[Any, Any]
) -> None:
    # When
    _, message, kind = error(**{documented: values[0], sent: values[1]})
    # Then
    assert kind == "two_spellings"
    assert message.startswith(f"{documented} and {sent} ")


def test_two_spellings_that_agree_are_one_filter() -> None:
    # When
    stored = canonical_of(job_type=["Full Time"], job_types=["full-time"], company_name="A")
    # Then
    assert stored == {"company_names": ["A"], "job_types": ["Full-time"]}


@pytest.mark.parametrize(
    ("search", "where", "kind"),
    [
        ({"job_title": ["x"]}, ("job_title",), "extra_forbidden"),
        ({"yoe": {"minimum": 1}}, ("yoe", "minimum"), "extra_forbidden"),
        ({"locations": [{"town": "x"}]}, ("locations", 0, "town"), "extra_forbidden"),
        ({"locations": [{}]}, ("locations", 0), "empty_location"),
        (
            {"geo_locations": [{"city": "x", "coordinates": [1, 2]}]},
            ("geo_locations", 0, "coordinates"),
            "model_type",
        ),
        ({"yoe": {"min": 7, "max": 6}}, ("yoe",), "range_order"),
        ({"salary": {"min": float("nan")}}, ("salary", "min"), "finite_number"),
        ({"salary": {"max": float("inf")}}, ("salary", "max"), "finite_number"),
        ({"salary": {"max": 10**400}}, ("salary", "max"), "float_type"),
        ({"salary": {"max": "5"}}, ("salary", "max"), "float_type"),
        ({"yoe": {"min": True}}, ("yoe", "min"), "float_type"),
        ({"date_posted": "2025-02-30"}, ("date_posted",), "date_parsing"),
        ({"date_posted": "20250228"}, ("date_posted",), "date_parsing"),
        ({"month": "2025-13"}, ("month",), "month_parsing"),
        ({"days_ago": -1}, ("days_ago",), "greater_than_equal"),
        ({"days_ago": 10**9}, ("days_ago",), "less_than_equal"),
        ({"days_ago": True}, ("days_ago",), "int_type"),
        ({"sort_by": "colour"}, ("sort_by",), "literal_error"),
        ({"sort_order": "up"}, ("sort_order",), "literal_error"),
        ({"page": 0}, ("page",), "greater_than_equal"),
        ({"limit": 0}, ("limit",), "greater_than_equal"),
        ({"visa": "yes"}, ("visa",), "bool_parsing"),
        ({"visa": 1}, ("visa",), "bool_parsing"),
        ({"job_titles": [5]}, ("job_titles",), "string_type"),
        ({"job_titles": {"a": 1}}, ("job_titles",), "list_type"),
        ({"job_titles": ["  "]}, ("job_titles",), "string_blank"),
        ({"job_titles": ["\ud800"]}, ("job_titles",), "string_unicode"),
        ({"job_titles": ["x"] * 1_001}, ("job_titles",), "too_long"),
        ({"job_slug": "x" * 1_001}, ("job_slug",), "string_too_long"),
    ],
)
def test_an_invalid_filter_is_refused_with_its_location(
    search: dict[str, Any], where: tuple[Any, ...], kind: str
) -> None:
    # When
    location, _, refused_as = error(**search)
    # Then
    assert (location, refused_as) == (where, kind)


def test_braces_in_a_refused_text_are_shown_as_they_were_sent() -> None:
    # When
    _, message, _ = error(date_posted="{day}")
    # Then
    assert message == "Input should be a date as YYYY-MM-DD, not '{day}'"


def test_days_ago_is_the_day_in_utc_at_creation() -> None:
    # Given
    east = timezone(timedelta(hours=14))
    just_past_midnight_there = datetime(2025, 6, 14, 0, 30, tzinfo=east)
    # When
    stored = searched(days_ago=0).canonical(just_past_midnight_there)
    # Then
    assert stored == {"date_posted": "2025-06-13"}


def test_of_two_lower_bounds_of_the_date_the_later_one_counts() -> None:
    # When
    relative_wins = canonical_of(days_ago=1, date_posted="2025-01-01")
    absolute_wins = canonical_of(days_ago=300, date_posted="2025-01-01")
    # Then
    assert relative_wins == {"date_posted": "2025-06-12"}
    assert absolute_wins == {"date_posted": "2025-01-01"}


def test_a_moment_without_a_time_zone_is_refused() -> None:
    # Given
    naive = NOW.replace(tzinfo=None)
    # When
    with pytest.raises(ValueError, match="time zone") as caught:
        searched(days_ago=1).canonical(naive)
    # Then
    assert "2025-06-13T06:10:07" in str(caught.value)


def test_everything_that_the_official_client_sends_is_accepted_and_kept() -> None:
    # Given
    typed = JobQuery.model_validate(
        {
            "job_titles": ["SWE"],
            "company_name": "A",
            "company_slug": ["a"],
            "locations": [{"city": "Rome"}],
            "geofilter_params": {"mode": "box"},
            "experience_levels": ["Entry"],
            "yoe": {"min": 2},
            "salary": {"min": 1, "currency": "USD", "period": "year"},
            "job_types": ["On call"],
            "job_category": ["c"],
            "visa": True,
            "include_expired": False,
            "return_raw_description": True,
            "filter_incomplete_jobs": True,
            "month": "2025-06",
            "limit": 500,
        }
    )
    sent = typed.to_payload()
    # When
    stored = canonical_of(**sent)
    # Then
    assert stored == {
        "job_titles": ["SWE"],
        "company_names": ["A"],
        "company_slugs": ["a"],
        "geo_locations": [{"city": "Rome"}],
        "geofilter_params": {"mode": "box", "radius": 25.0, "unit": "mi"},
        "experience_levels": ["Entry"],
        "yoe": {"min": 2.0},
        "salary": {"min": 1.0, "period": "year"},
        "currency": "USD",
        "job_types": ["On call"],
        "job_category": ["c"],
        "month": "2025-06",
        "visa": "true",
        "filter_incomplete_jobs": "true",
        "return_raw_description": "true",
    }


texts = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(
        lambda text: bool(text.strip())
    ),
    max_size=4,
)
ranges = st.tuples(st.floats(0, 9), st.floats(10, 99)).map(
    lambda pair: {"min": pair[0], "max": pair[1]}
)
searches = st.fixed_dictionaries(
    {},
    optional={
        "job_titles": texts,
        "job_type": texts | st.sampled_from(["full time", "Part-Time", "INTERN"]),
        "location_types": texts,
        "company_name": texts,
        "yoe": ranges,
        "salary": ranges,
        "visa": st.sampled_from(["true", "FALSE", True, False, None]),
        "days_ago": st.integers(0, 36_500),
        "date_posted": st.dates(min_value=datetime(1900, 1, 1, tzinfo=UTC).date()).map(str),
        "locations": st.lists(
            st.fixed_dictionaries({"city": st.sampled_from(["Rome", "東京"])}), max_size=3
        ),
        "sort_by": st.sampled_from(["salary", "yoe"]),
        "limit": st.integers(1, 10**12),
    },
)


@given(searches)
def test_a_canonical_search_survives_storage_and_being_sent_on(search: dict[str, Any]) -> None:
    # Given
    stored = canonical_of(**search)
    # When
    sent = searched(**json.loads(json.dumps(stored)))
    # Then
    assert sent.canonical(NOW + timedelta(days=9)) == stored
    assert canonical.digest(sent.canonical(NOW)) == canonical.digest(stored)


def test_the_digest_ignores_key_order_and_sees_every_value() -> None:
    # Given
    search = {"a": [1, 2], "b": "ä"}
    # When
    digest = canonical.digest(search)
    # Then
    assert digest == canonical.digest({"b": "ä", "a": [1, 2]})
    assert digest != canonical.digest({"a": [2, 1], "b": "ä"})
    assert len(digest) == 64
