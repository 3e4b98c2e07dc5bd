"""Each search filter finds exactly the matching postings."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.integration.board.desk import LIVE, ids


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        ({}, LIVE),
        ({"include_expired": "true"}, ["civil", "senior", "nurse", "old", "bare"]),
        ({"include_expired": "false"}, LIVE),
        ({"job_titles": ["engineer software"]}, ["senior"]),
        ({"job_titles": ["Engineer Software"], "include_expired": True}, ["senior", "old"]),
        ({"job_titles": ['"software engineer"'], "include_expired": True}, ["senior"]),
        ({"job_titles": ["nurse", "civil"]}, ["civil", "nurse"]),
        ({"job_titles": ["engineer -senior"]}, ["civil"]),
        ({"job_titles": ["-engineer"]}, ["nurse", "bare"]),
        ({"job_titles": ["nurse", "engineer -senior"]}, ["civil", "nurse"]),
        ({"job_titles": ["engin"]}, []),
        ({"job_titles": ["!?"]}, []),
        ({"job_titles": ['" OR rowid > 0 --']}, []),
        ({"keywords": ["c++"]}, ["civil"]),
        ({"keywords": ["c"]}, ["senior"]),
        ({"keywords": ["DEMOLISH"]}, ["civil"]),
        ({"keywords": ["machine learning"]}, ["senior", "nurse"]),
        ({"keywords": ["dental", "machines"]}, ["senior", "nurse"]),
        ({"keywords": ["machine", "-java"]}, ["nurse"]),
        ({"keywords": ["bridges/others"]}, ["civil"]),
        ({"company_keywords": ["rivers"]}, ["civil"]),
        ({"company_name": "COMPANY  xyz"}, ["civil", "senior"]),
        ({"company_names": ["company xyz", "Klinik"]}, ["civil", "senior", "nurse"]),
        ({"company_name": "company"}, []),
        ({"company_slug": "company-xyz"}, ["civil"]),
        ({"company_slugs": ["company-xyz"]}, ["civil"]),
        ({"company_types": ["11-50"]}, ["civil"]),
        ({"company_types": ["51-200", "1000+"]}, []),
        ({"job_slug": "civil-1"}, ["civil"]),
        ({"job_board": "lever"}, ["civil"]),
        ({"job_board": ["Lever", "Workday"]}, ["civil"]),
        ({"locations": [{"city": "richmond"}]}, ["civil"]),
        ({"geo_locations": [{"city": "Richmond", "country": "Germany"}]}, []),
        ({"geo_locations": [{"city": "Oakland", "region": "California"}]}, []),
        ({"geo_locations": [{"country": "united states"}]}, ["civil", "nurse"]),
        ({"geo_locations": [{"city": "san josé"}, {"city": "BERLIN"}]}, ["senior", "nurse"]),
        ({"location_group": "Bay_Area"}, ["nurse"]),
        ({"location_types": ["On-site"]}, ["civil"]),
        ({"location_types": "in person"}, ["civil"]),
        ({"location_types": ["remote", "hybrid"]}, ["senior"]),
        ({"job_type": ["full_time"]}, ["civil"]),
        ({"job_types": ["part-time", "Full Time"]}, ["civil", "senior"]),
        ({"experience": ["Mid"]}, ["civil"]),
        ({"experience_levels": ["senior level"]}, ["senior"]),
        ({"experience": ["Mid", "Senior"], "experience_levels": ["Senior"]}, ["senior"]),
        ({"yoe": {"min": 5, "max": 8}}, ["civil", "senior"]),
        ({"yoe": {"min": 5.5}}, ["senior"]),
        ({"yoe": {"max": 3}}, ["civil"]),
        ({"yoe": {"max": 2}}, []),
        ({"yoe": {"max": 2}, "include_yoe": "true"}, ["nurse", "bare"]),
        ({"include_yoe": "true"}, LIVE),
        ({"salary": {"min": 120000}}, ["civil", "senior"]),
        ({"salary": {"max": 499}}, []),
        ({"salary": {"max": 500}, "include_no_salary": True}, ["senior", "nurse", "bare"]),
        ({"salary": {"min": 1}, "currency": "usd"}, ["civil"]),
        ({"currency": "EUR"}, ["senior"]),
        ({"salary": {"min": 1, "currency": "EUR", "period": "Day"}}, ["senior"]),
        ({"job_category": ["engineering"]}, ["civil"]),
        ({"industry": "construction"}, ["civil"]),
        ({"industry": ["Nothing", "Design"], "sub_industry": ["architecture"]}, ["civil"]),
        ({"sub_industry": ["arch"]}, []),
        ({"visa": "true"}, ["civil"]),
        ({"visa": "false"}, LIVE),
        ({"hide_recruiting_agencies": "true"}, ["civil", "nurse", "bare"]),
        ({"filter_incomplete_jobs": "true"}, ["civil", "senior", "nurse"]),
        ({"date_posted": "2025-06-01"}, ["civil", "nurse"]),
        ({"month": "2025-05"}, ["senior"]),
        ({"days_ago": 2}, ["nurse"]),
        ({"days_ago": 1}, []),
        ({"sort_by": "date_posted", "sort_order": "desc"}, ["nurse", "civil", "senior", "bare"]),
        ({"sort_by": "salary", "sort_order": "desc"}, ["civil", "senior", "bare", "nurse"]),
        ({"sort_by": "yoe"}, ["nurse", "bare", "civil", "senior"]),
        ({"sort_by": "company", "sort_order": "asc"}, ["bare", "civil", "senior", "nurse"]),
        ({"sort_order": "desc"}, ["bare", "nurse", "senior", "civil"]),
        ({"visa": True, "job_types": ["Contract"]}, []),
    ],
)
def test_every_filter_finds_exactly_the_matching_postings(
    board: httpx.Client, search: dict[str, Any], expected: list[str]
) -> None:
    # When
    found = ids(board, **search)
    # Then
    assert found == expected


WASHINGTON = {"coordinates": {"type": "Point", "coordinates": [-77.0369, 38.9072]}}


@pytest.mark.parametrize(
    ("location", "near", "expected"),
    [
        (WASHINGTON, {"radius": 90, "unit": "mi"}, []),
        (WASHINGTON, {"radius": 100, "unit": "mi"}, ["civil"]),
        (WASHINGTON, {"radius": 100, "unit": "km"}, []),
        (WASHINGTON, {"radius": 1.5, "unit": "degrees"}, ["civil"]),
        (WASHINGTON, {"radius": 100, "mode": "box"}, ["civil"]),
        ({"bbox": [-78, 37, -77, 38]}, {"mode": "box"}, ["civil"]),
        ({"bbox": [-77, 37, -76, 38]}, {"mode": "box"}, []),
        ({"city": "Berlin", **WASHINGTON}, {"radius": 100, "mode": "weak"}, ["civil", "senior"]),
        ({"city": "Berlin", **WASHINGTON}, {"radius": 100, "mode": "strict"}, []),
        ({"city": "Richmond", **WASHINGTON}, {"radius": 100, "mode": "strict"}, ["civil"]),
    ],
)
def test_a_location_with_coordinates_is_a_circle_or_a_box(
    board: httpx.Client, location: dict[str, Any], near: dict[str, Any], expected: list[str]
) -> None:
    # When
    found = ids(board, geo_locations=[location], geofilter_params=near)
    # Then
    assert found == expected


def test_a_search_with_a_thousand_alternatives_in_each_filter_is_answered(
    board: httpx.Client,
) -> None:
    # Given
    many = [f"word{number}" for number in range(999)]
    places = [{"city": word} for word in many]
    # When
    titles = ids(board, job_titles=[*many, "nurse"])
    labels = ids(board, job_types=[*many, "contract"], industry=None)
    cities = ids(board, locations=[*places, {"city": "Berlin"}])
    excluded = ids(board, keywords=[f"-{word}" for word in [*many, "java"]])
    # Then
    assert titles == ["nurse"]
    assert labels == ["senior"]
    assert cities == ["senior"]
    assert excluded == ["civil", "nurse", "bare"]
