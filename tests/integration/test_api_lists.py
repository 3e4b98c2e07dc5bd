"""Names, metadata and filtered lists of exports over the wire."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.integration.api_server import CREATED, Service

PATH, BODY = CREATED["native"]


def make(api: Service, key: str | None = None, **fields: Any) -> dict[str, Any]:
    headers = {"X-API-Key": key} if key else {}
    answer = api.http.post(PATH, json=BODY | fields, headers=headers)
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = answer.json()
    return found


def listed(api: Service, query: str) -> list[str]:
    answer = api.http.get(f"/v1/exports?{query}")
    assert answer.status_code == 200, answer.text
    return [one["name"] for one in answer.json()["exports"]]


def test_name_and_metadata_are_echoed_in_every_answer(api: Service) -> None:
    # When
    made = make(api, name="Ärzte <b>", metadata={"team": "ops"})
    # Then
    shown = api.http.get(f"/v1/exports/{made['id']}").json()
    (entry,) = api.http.get("/v1/exports").json()["exports"]
    for one in (made, shown, entry):
        assert (one["name"], one["metadata"]) == ("Ärzte <b>", {"team": "ops"})
        assert one["created_by"] == api.keys.find(api.ann).id  # type: ignore[union-attr]
        assert one["retry_of"] is None


def test_a_retry_names_the_export_that_it_repeats(api: Service) -> None:
    # Given
    made = make(api, name="weekly", metadata={"a": "b"})
    api.http.post(f"/v1/exports/{made['id']}/cancel")
    # When
    again = api.http.post(f"/v1/exports/{made['id']}/retry").json()
    # Then
    assert again["retry_of"] == made["id"]
    assert (again["name"], again["metadata"]) == ("weekly", {"a": "b"})


def test_filters_order_and_counts(api: Service) -> None:
    # Given
    first = make(api, name="a one", metadata={"team": "x"})
    make(api, name="b two", metadata={"team": "x", "k": "v"}, format="json")
    make(api, name="c two")
    make(api, api.bob, name="of bob")
    api.http.post(f"/v1/exports/{first['id']}/cancel")
    # When / Then
    assert listed(api, "metadata[team]=x") == ["b two", "a one"]
    assert listed(api, "metadata[team]=x&metadata[k]=v") == ["b two"]
    assert listed(api, "state=canceled,failed") == ["a one"]
    assert listed(api, "name=TWO&order=oldest") == ["b two", "c two"]
    assert listed(api, "format=json&source=board") == ["b two"]
    assert listed(api, "outcome=complete") == []
    assert listed(api, "created_from=2020-01-01&created_to=2020-01-02") == []
    counts = api.http.get("/v1/exports?metadata[team]=x&state=queued").json()
    assert counts["counts"] == {
        "queued": 1, "processing": 0, "finished": 0, "failed": 0, "canceled": 1,
    }  # fmt: skip
    assert counts["counts_are_exact"] is True


def test_the_link_of_the_next_page_repeats_the_filters(api: Service) -> None:
    # Given
    for name in ("one", "two"):
        make(api, name=name, metadata={"a b": "c&d"})
    # When
    first = api.http.get("/v1/exports?limit=1&order=oldest&metadata[a b]=c%26d")
    link = first.headers["Link"].partition(">")[0].removeprefix("<")
    second = api.http.get(f"/v1/exports?{urlsplit(link).query}")
    # Then
    assert parse_qs(urlsplit(link).query)["metadata[a b]"] == ["c&d"]
    assert [one["name"] for one in second.json()["exports"]] == ["two"]
    assert "Link" not in second.headers
    # When
    other = api.http.get("/v1/exports", params={"cursor": first.json()["next_cursor"]})
    # Then
    assert other.status_code == 422
    assert "with the same filters" in other.json()["errors"][0]["detail"]


@pytest.mark.parametrize(
    ("query", "parameter", "said"),
    [
        ("state=done", "state", "'done' is no state: give queued, processing"),
        ("state=queued,,", "state", "'' is no state"),
        ("created_from=soon", "created_from", "is not a date or time"),
        ("order=random", "order", "newest"),
        ("outcome=good", "outcome", "complete"),
        ("metadata=x", "metadata", "unknown parameter"),
        ("metadata[]=x", "metadata[]", "unknown parameter"),
        ("metadata[a]=x&metadata[a]=y", "metadata[a]", "more than once"),
    ],
)
def test_a_wrong_filter_is_named(api: Service, query: str, parameter: str, said: str) -> None:
    # When
    answer = api.http.get(f"/v1/exports?{query}")
    # Then
    assert answer.status_code == 422
    wrong = {one["parameter"]: one["detail"] for one in answer.json()["errors"]}
    assert said in wrong[parameter]


@pytest.mark.parametrize(
    ("fields", "pointer", "said"),
    [
        ({"name": "x" * 10_000}, "/name", "10000 characters: give at most 100"),
        ({"name": 7}, "/name", "string"),
        ({"metadata": {f"k{n}": "v" for n in range(21)}}, "/metadata", "21 pairs: give at most 20"),
        ({"metadata": {"k": 7}}, "/metadata/k", "string"),
        ({"metadata": ["k"]}, "/metadata", "dictionary"),
        ({"metadata": {"k" * 41: "v"}}, f"/metadata/{'k' * 40}", "give 1 to 40"),
        ({"metadata": {"": "v"}}, "/metadata/", "give 1 to 40"),
        ({"metadata": {"k": "v" * 501}}, "/metadata/k", "give at most 500"),
    ],
)
def test_a_wrong_name_or_metadata_is_refused_with_its_place(
    api: Service, fields: dict[str, Any], pointer: str, said: str
) -> None:
    # When
    answer = api.http.post(PATH, json=BODY | fields)
    # Then
    assert answer.status_code == 422
    wrong = {one["pointer"]: one["detail"] for one in answer.json()["errors"]}
    assert said in wrong[pointer]
    assert api.http.get("/v1/exports").json()["exports"] == []
