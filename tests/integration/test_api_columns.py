"""Columns of an export on our own contract: fields, parts of fields, new names, and all."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from exporter.core.columns import Picked
from tests.integration.api_server import CREATED, Service

PATH, BODY = CREATED["native"]


def post(api: Service, columns: Any, **fields: Any) -> httpx.Response:
    return api.http.post(PATH, json=BODY | {"columns": columns} | fields)


def test_parts_names_and_all_columns_are_frozen_in_the_record(api: Service) -> None:
    # When
    answer = post(
        api,
        ["job_title", "salary_range.min as low", {"locations[0].city": "city"}, "expired"],
    )
    whole = post(api, ["*", "salary_range.max"]).json()
    # Then
    assert answer.status_code == 202, answer.text
    assert answer.json()["columns"] == [
        "job_title", "salary_range.min as low", "locations[0].city as city", "expired",
    ]  # fmt: skip
    again = post(api, answer.json()["columns"])
    assert again.json()["columns"] == answer.json()["columns"]
    export = api.engine.store.get(answer.json()["id"])
    assert export is not None
    assert export.spec.columns == (
        "job_title",
        Picked("low", ("salary_range", "min")),
        Picked("city", ("locations", 0, "city")),
        "expired",
    )
    assert export.spec.types == {"expired": "flag"}
    assert whole["columns"] == [*api.engine.sources.columns("board"), "salary_range.max"]


@pytest.mark.parametrize(
    ("columns", "pointer", "text"),
    [
        (["salary_rnage.min"], "/columns/0", "did you mean 'salary_range'"),
        (["_id", "salary_range..min"], "/columns/1", "is no path"),
        (["job_title.x"], "/columns/0", "is text, which has no parts"[3:]),
        (["_id", "expired as _id"], "/columns/1", "two columns are named '_id'"),
        (["*", "_id"], "/columns/1", "two columns are named '_id'"),
        (["_id", "_id"], "/columns/1", "given twice"),
        ([""], "/columns/0", "empty"),
        ([{"_id": 3}], "/columns/0/_id", "string"),
    ],
)
def test_what_is_no_column_is_refused(api: Service, columns: Any, pointer: str, text: str) -> None:
    # When
    answer = post(api, columns)
    # Then
    assert answer.status_code == 422, answer.text
    found = {one["pointer"]: one["detail"] for one in answer.json()["errors"]}
    assert text in next(one for place, one in found.items() if place.startswith(pointer[:10]))
    assert api.http.get(PATH).json()["exports"] == []


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"format": "json"}, ".jsonl"),
        ({"format": "json", "compression": "gzip"}, ".jsonl.gz"),
        ({"format": "json", "file_name": "mine.json"}, "mine.json"),
        ({"format": "json", "file_name": "mine"}, "mine.jsonl"),
        ({"format": "csv"}, ".csv"),
    ],
)
def test_json_lines_have_their_own_extension_here(
    api: Service, fields: dict[str, str], name: str
) -> None:
    # When
    answer = post(api, None, **fields)
    # Then
    export = api.engine.store.get(answer.json()["id"])
    assert export is not None
    assert export.spec.file_name.endswith(name)


def test_the_types_of_a_source_are_shown(api: Service) -> None:
    assert api.http.get("/v1/sources/board").json()["column_types"]["expired"] == "flag"
