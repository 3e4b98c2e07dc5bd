"""Sources over the wire: what they are, how they answered, and a look at their rows."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from exporter.core.plans import Plan
from exporter.core.rates import Rate
from exporter.errors import SourceUnavailable
from exporter.sources.base import Page
from exporter.sources.memory import MemorySource
from exporter.store.redis.source_statistics import SourceStatistics
from tests.integration.api_server import Service

ROWS = [
    msgspec.Raw(json.dumps({"_id": f"{n}", "title": f"<b>{n}</b>"}).encode()) for n in range(30)
]


class Listing(MemorySource):
    """A source whose upstream publishes the values of a filter."""

    def listed_values(self) -> dict[str, tuple[str, ...]]:
        return {"industry": ("Welding", "Baking")}


@pytest.fixture
def board(api: Service) -> MemorySource:
    """The source `board`, with 30 rows."""
    source = Listing(ROWS, page_size=20, columns=("_id", "title"))
    api.engine.sources.opened["board"] = source
    return source


def key(api: Service, **plan: Any) -> dict[str, str]:
    return {"X-API-Key": api.keys.create("ann", plan=Plan(None, **plan))}


def test_the_list_says_how_each_source_answered(api: Service) -> None:
    """Given a source that answered and was then limited, when the sources are listed, then its use
    has both; a key whose plan lacks it sees that, too.
    """
    statistics = SourceStatistics(api.keys.client)
    statistics.meter("board")(0.2, 200)
    statistics.meter("board")(0.2, 429)
    statistics.flush()
    (found,) = api.http.get("/v1/sources").json()["sources"]
    assert (found["name"], found["type"], found["feature"]) == ("board", "hirebase", "export")
    assert found["allowed"] is True
    assert found["rate"] is None
    use = found["use"]
    assert (use["requests"], use["limited"], use["failed"]) == (2, 1, 0)
    assert use["last_success_at"].endswith("Z")
    (poor,) = api.http.get("/v1/sources", headers=key(api, features=frozenset({"bulk"}))).json()[
        "sources"
    ]
    assert poor["allowed"] is False


def test_a_source_has_its_filters_with_the_values_of_the_upstream(
    api: Service, board: MemorySource
) -> None:
    found = api.http.get("/v1/sources/board").json()
    filters = {one["name"]: one for one in found["filters"]}
    assert filters["industry"]["choices"] == ["Welding", "Baking"]
    assert filters["location_types"]["choices"] == ["Remote", "Hybrid", "In-Person"]
    assert filters["date_posted"]["kind"] == "day"
    assert found["default_columns"] == ["_id", "title"]
    assert "job_title" in found["columns"]


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("POST", "/preview")])
def test_an_unknown_source_is_named_with_the_known_ones(
    api: Service, method: str, path: str
) -> None:
    answer = api.http.request(
        method, f"/v1/sources/Bord{path}", json={"query": {}} if path else None
    )
    assert answer.status_code == 404
    assert "'Bord' is not configured; configured: board" in answer.json()["detail"]


def test_a_preview_has_the_first_twenty_rows_and_the_total(
    api: Service, board: MemorySource
) -> None:
    answer = api.http.post("/v1/sources/board/preview", json={"query": {}}).json()
    assert [row["_id"] for row in answer["rows"]] == [str(n) for n in range(20)]
    assert answer["total"] == 30
    assert board.fetched == 1


def test_a_preview_creates_and_costs_nothing(api: Service, board: MemorySource) -> None:
    secret = api.keys.create("ann", balance=5)
    header = {"X-API-Key": secret}
    assert api.http.post("/v1/sources/board/preview", json={"query": {}}, headers=header).is_success
    assert api.http.get("/v1/exports", headers=header).json()["exports"] == []
    own = api.keys.find(secret)
    assert own is not None
    assert api.keys.client.hget(f"{{exporter}}:account:{own.id}", "left") == b"5"


def test_a_preview_needs_the_feature_and_a_valid_query(api: Service) -> None:
    poor = key(api, features=frozenset({"bulk"}))
    refused = api.http.post("/v1/sources/board/preview", json={"query": {}}, headers=poor)
    assert refused.status_code == 403
    wrong = api.http.post("/v1/sources/board/preview", json={"query": {"titel": "x"}})
    assert wrong.status_code == 422
    assert wrong.json()["errors"][0]["pointer"] == "/query/titel"


def test_a_source_that_does_not_answer_is_said_so(
    api: Service, board: MemorySource, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(query: Any, cursor: Any) -> Page:
        raise SourceUnavailable("the source did not answer: no whole answer within 8 s")

    monkeypatch.setattr(board, "fetch", fetch)
    answer = api.http.post("/v1/sources/board/preview", json={"query": {}})
    assert answer.status_code in (502, 503)
    assert "did not answer" in answer.json()["detail"]


def test_a_list_of_sources_counts_as_a_list(api: Service) -> None:
    api.engine.settings = api.engine.settings.model_copy(update={"list_rate": Rate(1, 60)})
    assert api.http.get("/v1/sources").status_code == 200
    assert api.http.get("/v1/exports").status_code == 429
