"""A form says exactly the request that it was filled from, and hides no filter."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest

from exporter.console import search_form
from exporter.contracts import coresignal, hirebase
from exporter.contracts.described import Filter

QUERIES: tuple[tuple[tuple[Filter, ...], dict[str, Any]], ...] = (
    (hirebase.FILTERS, {}),
    (hirebase.FILTERS, {"job_titles": ["welder", "-intern"], "keywords": ["a, b"]}),
    (hirebase.FILTERS, {"salary": {"min": 50_000.0, "max": 1.5}, "days_ago": 0}),
    (hirebase.FILTERS, {"geo_locations": [{"city": "Berlin", "country": "Germany"}]}),
    (hirebase.FILTERS, {"geo_locations": [{"city": "A"}, {"city": "B"}]}),
    (hirebase.FILTERS, {"geo_locations": [{"bbox": [1.0, 2.0, 3.0, 4.0]}], "month": "2026-03"}),
    (hirebase.FILTERS, {"salary": {"min": 1, "period": "year"}, "visa": "false"}),
    (hirebase.FILTERS, {"geofilter_params": {"mode": "strict", "radius": 3.5, "unit": "km"}}),
    (hirebase.FILTERS, {"expired_since": "2026-03-01", "sort_by": "salary"}),
    (coresignal.FILTERS, {"created_at_gte": "2026-03-01 00:00:00", "company_id": 7}),
    (coresignal.FILTERS, {"deleted": False, "title": '"a phrase" OR b'}),
    (coresignal.FILTERS, {"es_dsl": {"query": {"match_all": {}}}}),
)


@pytest.mark.parametrize(("filters", "query"), QUERIES)
def test_a_query_comes_back_from_its_fields(
    filters: tuple[Filter, ...], query: dict[str, Any]
) -> None:
    again = search_form.query(search_form.query_fields(query, filters), filters)
    flags = {one.name for one in filters if one.kind == "flag"}
    spoken = {
        name: value in (True, "true") if name in flags else value for name, value in query.items()
    }
    assert again == spoken


def test_an_empty_form_asks_for_every_posting() -> None:
    form = {f"f.{one.name}": [""] for one in hirebase.FILTERS}
    assert search_form.body({**form, "source": ["board"]}, hirebase.FILTERS) == {
        "source": "board",
        "query": {},
    }


@pytest.mark.parametrize("text", ["many", "1e", "{"])
def test_a_wrong_text_is_left_to_the_api(text: str) -> None:
    form = {"limit": [text], "query": [text], "f.days_ago": [text]}
    body = search_form.body(form, hirebase.FILTERS)
    assert body["limit"] == text
    assert body["query"] == text


def test_the_command_is_the_request_whatever_its_texts() -> None:
    body = {"source": "board", "query": {"job_titles": ["it's $HOME `id` \"x\"\n'"]}}
    words = shlex.split(search_form.curl(body, "http://127.0.0.1:8800"))
    assert words[2] == "http://127.0.0.1:8800/v1/exports"
    assert json.loads(words[-1]) == body


def test_metadata_is_a_pair_a_line() -> None:
    form = {"metadata": ["team = growth\r\n\r\nurl=a=b\nplain"]}
    assert search_form.body(form, ())["metadata"] == {"team": "growth", "url": "a=b", "plain": ""}


@pytest.mark.parametrize("text", ["nan", "infinity", "-inf", "1e999", "9" * 400, "8" * 5_000])
def test_what_is_no_finite_number_stays_text_so_that_it_is_refused(text: str) -> None:
    # JSON would make it null, and the export would have no limit.
    body = search_form.body({"limit": [text], "f.salary.min": [text]}, hirebase.FILTERS)
    assert body["limit"] == text
    assert body["query"] == {"salary": {"min": text}}


@pytest.mark.parametrize("text", ["[" * 5_000, '{"a": ', "NaN", '"x"'])
def test_a_query_that_is_no_object_is_passed_on_to_be_refused(text: str) -> None:
    assert not isinstance(search_form.body({"query": [text]}, ())["query"], dict)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_numbers_that_json_does_not_have_stay_text_in_a_query(number: str) -> None:
    body = search_form.body({"query": [f'{{"days_ago": {number}}}']}, ())
    assert body["query"] == {"days_ago": number}
