"""Every filter of a source is described once, with the input that its type needs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from exporter.contracts import coresignal, hirebase, pipeline
from exporter.contracts.described import Filter, describe
from exporter.contracts.hirebase import JobSearch
from exporter.sources.bindbee import BindbeeConfig
from exporter.sources.qwestly import QwestlyConfig
from exporter.sources.registry import TYPES

VALUES: dict[str, Any] = {
    "text": "welder",
    "texts": ["welder", "cook"],
    "flag": True,
    "day": "2026-01-31",
    "month": "2026-01",
    "number": 3,
    "range": {"min": 1, "max": 2},
    "places": [{"city": "Berlin", "country": "Germany"}],
    "json": {},
}
"""A valid value of each kind that does not depend on the source."""


def named(filters: tuple[Filter, ...]) -> dict[str, Filter]:
    return {one.name: one for one in filters}


@pytest.mark.parametrize("name", TYPES)
def test_every_type_of_source_describes_its_filters(name: str) -> None:
    filters = TYPES[name].filters
    assert filters
    assert len(named(filters)) == len(filters)


def test_a_value_of_the_described_kind_is_a_valid_filter() -> None:
    """Given each filter of a Hirebase search, when it gets a value of its kind, or each of its
    choices, then the search is valid and keeps the filter.
    """
    for one in hirebase.FILTERS:
        for value in one.choices or (VALUES[one.kind],):
            search = JobSearch.model_validate({one.name: value})
            canonical = search.canonical(datetime(2026, 1, 1, tzinfo=UTC))
            known = "date_posted" if one.name == "days_ago" else one.name
            assert known in canonical, one


def test_a_filter_has_one_spelling_and_no_bound_of_the_export() -> None:
    found = named(hirebase.FILTERS)
    assert found.keys().isdisjoint({"job_type", "locations", "company_name", "page", "limit"})
    assert {"job_types", "geo_locations", "company_names"} <= found.keys()
    assert "company_linkedin_url" not in named(coresignal.FILTERS)


def test_the_known_labels_are_choices_in_the_vendor_s_order() -> None:
    found = named(hirebase.FILTERS)
    assert found["location_types"].choices == ("Remote", "Hybrid", "In-Person")
    assert found["sort_order"].kind == "choice"
    assert found["sort_order"].choices == ("asc", "desc")
    assert found["industry"].choices == ()


@pytest.mark.parametrize(
    ("filters", "name", "kind"),
    [
        (hirebase.FILTERS, "days_ago", "number"),
        (hirebase.FILTERS, "salary", "range"),
        (hirebase.FILTERS, "visa", "flag"),
        (hirebase.FILTERS, "geofilter_params", "json"),
        (coresignal.FILTERS, "created_at_gte", "time"),
        (coresignal.FILTERS, "company_id", "number"),
        (coresignal.FILTERS, "deleted", "flag"),
        (BindbeeConfig.filters, "modified_after", "time"),
        (BindbeeConfig.filters, "ids", "texts"),
        (QwestlyConfig.filters, "company_id", "text"),
        (pipeline.FILTERS, "from", "time"),
    ],
)
def test_the_kind_follows_from_the_type(filters: tuple[Filter, ...], name: str, kind: str) -> None:
    assert named(filters)[name].kind == kind


def test_descriptions_are_those_of_the_model() -> None:
    (one,) = (one for one in describe(JobSearch) if one.name == "month")
    assert one.description == "Posted in this month, YYYY-MM."
