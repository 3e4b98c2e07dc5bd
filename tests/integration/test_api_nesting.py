"""Deeply nested JSON is refused on every path that reads a body, before anything is stored."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import httpx
import pytest

from exporter.api.bodies import MAX_NESTING
from exporter.sources.coresignal import CoresignalConfig
from tests.integration.api_server import Service

JSON = {"Content-Type": "application/json"}


class Place(NamedTuple):
    """A field that a caller can fill with any JSON."""

    path: str
    body: bytes
    """The request's body; `%b` stands for the nested value."""
    field: str
    levels: int
    """Levels of the body around the nested value."""


HOOK = "/v1/webhook-endpoints"
PLACES = {
    "native": Place("/v1/exports", b'{"source":"board","format":"csv","query":%b}', "query", 1),
    "estimate": Place("/v1/exports/estimate", b'{"source":"board","query":%b}', "query", 1),
    "unknown field": Place("/v1/exports", b'{"nonsense":%b}', "nonsense", 1),
    "task": Place("/v2/jobs/export", b'{"format":"csv","search":%b}', "search", 1),
    "task in a text": Place("/v2/jobs/export", b'{"a":"[{]\\"","search":%b}', "search", 1),
    "search": Place("/v2/jobs/search", b'{"job_titles":%b}', "job_titles", 1),
    "filters": Place("/v2/data_requests/job_base/filter", b'{"filters":%b}', "filters", 1),
    "dsl": Place(
        "/v2/data_requests/job_base/es_dsl", b'{"es_dsl_query":{"query":%b}}', "es_dsl_query", 2
    ),
    "older filters": Place(
        "/v1/professional_network/job/bulk_collect/filter", b'{"filters":%b}', "filters", 1
    ),
    "ids": Place("/v2/data_requests/job_base/ids", b'{"ids":%b}', "ids", 1),
    "endpoint": Place(HOOK, b'{"url":"https://example.com/","events":%b}', "events", 1),
    "rotation": Place(f"{HOOK}/we_1/rotate", b'{"grace_seconds":%b}', "grace_seconds", 1),
    "recovery": Place(f"{HOOK}/we_1/recover", b'{"since":%b}', "since", 1),
}


def nested(levels: int, kind: str) -> bytes:
    """Returns JSON of so many levels, in objects or in lists."""
    if kind == "lists":
        return b"[" * levels + b"]" * levels
    return b'{"a":' * (levels - 1) + b"{}" + b"}" * (levels - 1)


def send(api: Service, place: Place, value: bytes) -> httpx.Response:
    return api.http.post(
        place.path, content=place.body % value, headers={**JSON, "apikey": api.ann}
    )


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES.keys())
def test_json_beyond_the_deepest_level_is_refused_with_its_place(
    api: Service, place: Place
) -> None:
    for excess, kind in itertools.product((1, 938, 100_000), ("objects", "lists")):
        # When
        answer = send(api, place, nested(MAX_NESTING - place.levels + excess, kind))

        # Then
        assert answer.status_code == 422, answer.text
        assert f"deeper than {MAX_NESTING} levels" in answer.text
        assert place.field in answer.text
        assert len(answer.content) < 1_000
    assert not api.engine.store.list("ann", limit=1).exports


def test_a_query_of_the_deepest_level_is_accepted_and_can_be_polled(api: Service) -> None:
    # Given
    api.engine.config.sources["coresignal"] = CoresignalConfig(
        base_url="http://127.0.0.1:9", api_key="unused"
    )
    place = PLACES["dsl"]

    # When
    answer = send(api, place, nested(MAX_NESTING - place.levels, "objects"))

    # Then
    assert answer.status_code == 201, answer.text
    export_id = answer.json()["request_id"]
    assert api.http.get(f"/v1/exports/{export_id}").status_code == 200
