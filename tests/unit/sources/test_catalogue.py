"""The lists of allowed values that an upstream publishes, and the checks against them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from exporter.clock import FakeClock
from exporter.errors import QueryError, SourceUnavailable
from exporter.sources.catalogue import LIST_TTL_SECONDS, LISTS, RECHECK_SECONDS, Catalogue

TOLD = {
    LISTS["industries"]: {"industries": ["Design", "Tech & IT"], "sub_industries": ["Payments"]},
    LISTS["categories"]: {"categories": ["Nursing"]},
}


class Upstream:
    """Serves lists, and counts the requests."""

    def __init__(self, told: dict[str, Any] | None = None) -> None:
        self.told = told or json.loads(json.dumps(TOLD))
        self.asked = 0
        self.away = False

    def __call__(self, path: str) -> bytes:
        self.asked += 1
        if self.away:
            raise SourceUnavailable("away")
        return json.dumps(self.told[path]).encode()


def made(upstream: Callable[[str], bytes]) -> tuple[Catalogue, FakeClock]:
    clock = FakeClock()
    return Catalogue(upstream, clock), clock


def test_known_values_get_the_spelling_of_upstream() -> None:
    # Given
    catalogue, _ = made(Upstream())

    # When
    spelled = catalogue.with_listed_spelling(
        {
            "industry": ["TECH & IT", "design"],
            "job_titles": ["Welder"],
            "sub_industry": ["PAYMENTS"],
            "job_category": ["nursing"],
        }
    )

    # Then
    assert spelled == {
        "industry": ["Tech & IT", "Design"],
        "job_titles": ["Welder"],
        "sub_industry": ["Payments"],
        "job_category": ["Nursing"],
    }


def test_each_unknown_value_is_named_with_similar_values() -> None:
    # Given
    catalogue, _ = made(Upstream())

    # When
    with pytest.raises(QueryError) as refused:
        catalogue.with_listed_spelling(
            {"industry": ["Desing", "Design", "Xyz"], "job_category": ["Nursin"]}
        )

    # Then
    said = {(problem["loc"], problem["msg"]) for problem in refused.value.problems}
    assert said == {
        (
            ("industry",),
            "unknown industry 'Desing': did you mean 'Design'? "
            "GET /v2/jobs/data/industries lists all 2",
        ),
        (("industry",), "unknown industry 'Xyz': GET /v2/jobs/data/industries lists all 2"),
        (
            ("job_category",),
            "unknown job_category 'Nursin': did you mean 'Nursing'? "
            "GET /v2/jobs/data/categories lists all 1",
        ),
    }


def test_a_search_without_such_filters_sends_no_request() -> None:
    # Given
    upstream = Upstream()
    catalogue, _ = made(upstream)

    # When
    catalogue.with_listed_spelling({"job_titles": ["Welder"]})

    # Then
    assert upstream.asked == 0


def test_a_list_is_requested_once_an_hour() -> None:
    # Given
    upstream = Upstream()
    catalogue, clock = made(upstream)

    # When / Then
    for _ in range(3):
        catalogue.with_listed_spelling({"industry": ["Design"]})
    assert upstream.asked == 1
    clock.advance(LIST_TTL_SECONDS)
    catalogue.with_listed_spelling({"industry": ["Design"]})
    assert upstream.asked == 2


def test_a_value_that_is_new_upstream_is_not_refused_for_an_hour() -> None:
    # Given
    upstream = Upstream()
    catalogue, clock = made(upstream)
    catalogue.with_listed_spelling({"industry": ["Design"]})
    upstream.told[LISTS["industries"]]["industries"].append("Robots")

    # When
    clock.advance(RECHECK_SECONDS)
    spelled = catalogue.with_listed_spelling({"industry": ["robots"]})

    # Then
    assert spelled == {"industry": ["Robots"]}


def test_wrong_values_do_not_cause_a_request_each_time() -> None:
    # Given
    upstream = Upstream()
    catalogue, _ = made(upstream)

    # When
    for _ in range(5):
        with pytest.raises(QueryError):
            catalogue.with_listed_spelling({"industry": ["Desing"]})

    # Then
    assert upstream.asked == 1


def test_while_upstream_is_down_every_value_is_accepted_and_a_minute_passes_between_requests() -> (
    None
):
    # Given
    upstream = Upstream()
    upstream.away = True
    catalogue, clock = made(upstream)

    # When
    spelled = [catalogue.with_listed_spelling({"industry": ["Desing"]}) for _ in range(3)]

    # Then
    assert spelled == [{"industry": ["Desing"]}] * 3
    assert upstream.asked == 1
    with pytest.raises(SourceUnavailable):
        catalogue.body("industries")

    # When: upstream is available again
    upstream.away = False
    clock.advance(RECHECK_SECONDS)

    # Then
    assert json.loads(catalogue.body("industries")) == TOLD[LISTS["industries"]]


def test_the_last_copy_of_a_list_is_served_while_upstream_is_down() -> None:
    # Given
    upstream = Upstream()
    catalogue, clock = made(upstream)
    before = catalogue.body("categories")

    # When
    upstream.away = True
    clock.advance(LIST_TTL_SECONDS)

    # Then
    assert catalogue.body("categories") == before
    assert upstream.asked == 2


@pytest.mark.parametrize(
    "told",
    [[], {}, {"industries": []}, {"industries": {"Design": 1}}, {"industries": [1]}, "x", None],
)
def test_an_empty_list_or_another_shape_allows_every_value(told: object) -> None:
    # Given
    catalogue, _ = made(Upstream({LISTS["industries"]: told}))

    # When
    spelled = catalogue.with_listed_spelling({"industry": ["Desing"], "sub_industry": ["Payment"]})

    # Then
    assert spelled == {"industry": ["Desing"], "sub_industry": ["Payment"]}


def test_a_bare_list_holds_industries_and_allows_every_sub_industry() -> None:
    # Given
    catalogue, _ = made(Upstream({LISTS["industries"]: ["Design"]}))

    # When / Then
    assert catalogue.with_listed_spelling({"sub_industry": ["Any"]}) == {"sub_industry": ["Any"]}
    assert catalogue.with_listed_spelling({"industry": ["DESIGN"]}) == {"industry": ["Design"]}
    with pytest.raises(QueryError):
        catalogue.with_listed_spelling({"industry": ["Any"]})


def test_similar_values_are_searched_for_a_few_unknown_values_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given: near misses of a long list in each of three filters
    searches: list[str] = []

    def search(value: str, known: Any, n: int) -> list[str]:
        searches.append(value)
        return list(known)[:n]

    monkeypatch.setattr("difflib.get_close_matches", search)
    names = [f"Industry of {n}" for n in range(1_000)]
    lists = {
        LISTS["industries"]: {"industries": names, "sub_industries": names},
        LISTS["categories"]: {"categories": names},
    }
    catalogue, _ = made(Upstream(lists))
    misses = [f"{name}x" for name in names]

    # When
    with pytest.raises(QueryError) as refused:
        catalogue.with_listed_spelling(
            {"job_category": misses, "sub_industry": misses, "industry": misses}
        )

    # Then: each value is still named
    assert len(searches) == 3
    problems = refused.value.problems
    assert len(problems) == 3_000
    assert ["did you mean" in one["msg"] for one in problems[:4]] == [True, True, True, False]
    assert problems[0]["loc"] == ("industry",)
