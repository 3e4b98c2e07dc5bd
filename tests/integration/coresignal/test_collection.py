"""The files of a data request: which there are, for whom, and what is told instead."""

from __future__ import annotations

import gzip
import json
from datetime import timedelta

import httpx
import pytest

from exporter.core.exports import State
from tests.integration.api_server import LEASE, Service
from tests.integration.coresignal.desk import V1, check_flat, collected, create, holding, work


def test_the_older_paths_split_any_number_of_records_into_files_of_10000(api: Service) -> None:
    # Given
    holding(api, 25_000)

    # When
    place = collected(api, create(api, V1), "/v1/bulk_collect")
    listed = api.http.get(place)

    # Then
    assert listed.status_code == 200
    assert list(listed.json()) == ["data_request_files"]
    names = listed.json()["data_request_files"]
    export_id = place.split("/")[-2]
    assert names == [f"part-{n:05d}-{export_id}-h000.json.gz" for n in range(3)]
    identities: list[str] = []
    for name, rows in zip(names, (10_000, 10_000, 5_000), strict=True):
        answer = api.http.get(f"{place}/{name}", headers={"Accept": "application/gzip"})
        assert answer.status_code == 200
        assert answer.headers["Content-Type"] == "application/gzip"
        assert "Content-Encoding" not in answer.headers
        assert "Transfer-Encoding" not in answer.headers
        assert int(answer.headers["Content-Length"]) == len(answer.content)
        assert answer.headers["Accept-Ranges"] == "bytes"
        assert f'filename="{name}"' in answer.headers["Content-Disposition"]
        lines = gzip.decompress(answer.content).decode().split("\n")
        assert lines.pop() == ""
        assert len(lines) == rows
        identities += [json.loads(line)["_id"] for line in lines]
    assert identities == [str(n) for n in range(1, 25_001)]


@pytest.mark.parametrize(
    ("matching", "limit", "collectable"),
    [(10_000, None, True), (10_001, None, False), (10_001, 20_000, False), (10_500, 10_000, True)],
)
def test_the_current_paths_give_at_most_10000_matches_and_say_so_when_collecting(
    api: Service, matching: int, limit: int | None, collectable: bool
) -> None:
    # Given
    holding(api, matching)

    # When
    place = collected(api, create(api, limit=limit))
    listed = api.http.get(place)

    # Then
    if collectable:
        assert len(listed.json()["data_request_files"]) == 1
    else:
        for path in (place, place.replace("/v2/data_requests", "/v1/bulk_collect")):
            check_flat(
                api.http.get(path), 422, "Request matched too many IDs. Maximum is 10,000 IDs"
            )
        export_id = place.split("/")[-2]
        check_flat(api.http.get(f"{place}/part-00000-{export_id}-h000.json.gz"), 422)


def test_nothing_matched_is_told_when_collecting(api: Service) -> None:
    # Given
    holding(api, 0)

    # When
    place = collected(api, create(api))

    # Then
    check_flat(api.http.get(place), 422, "did not find any matching IDs")


def test_what_will_never_have_files_is_told_and_not_polled_for_ever(api: Service) -> None:
    # Given
    canceled, failed, expired = (
        create(api, filters={"title": title}).json()["request_id"]
        for title in ("canceled", "failed", "expired")
    )
    api.engine.cancel("ann", canceled)
    claim = api.engine.store.claim("worker-test-1", lease=LEASE)
    assert claim is not None
    assert claim.export.id == failed
    api.engine.store.end(
        failed,
        claim.fence,
        State.FAILED,
        error="the source refused",
        keep_record=timedelta(days=60),
    )
    work(api, expired)
    kept = api.http.get(f"/v2/data_requests/{expired}/files")

    # When
    api.clock.advance(timedelta(days=29, hours=23).total_seconds())
    last_day = api.http.get(f"/v2/data_requests/{expired}/files")
    answers = {
        export_id: api.http.get(f"/v2/data_requests/{export_id}/files")
        for export_id in (canceled, failed)
    }
    api.clock.advance(timedelta(hours=2).total_seconds())

    # Then
    assert kept.status_code == last_day.status_code == 200
    check_flat(answers[canceled], 404, "canceled")
    check_flat(answers[failed], 422, "the source refused")
    check_flat(api.http.get(f"/v2/data_requests/{expired}/files"), 404)


def test_nobody_elses_data_request_is_seen_and_no_other_file_is_served(api: Service) -> None:
    # Given
    place = collected(api, create(api))
    (name,) = api.http.get(place).json()["data_request_files"]
    waiting = create(api, filters={}).json()["request_id"]

    # When
    with httpx.Client(base_url=api.http.base_url, headers={"apikey": api.bob}) as bob:
        answers = [
            bob.get(place),
            bob.get(f"{place}/{name}"),
            bob.get(f"/v1/bulk_collect/{waiting}/files"),
        ]
    answers += [
        api.http.get("/v2/data_requests/unknown/files"),
        api.http.get(f"{place}/part-00001-x.json.gz"),
        api.http.get(f"{place}/..%2f{name}"),
        api.http.get(f"/v2/data_requests/{waiting}/files/{name}"),
    ]

    # Then
    for answer in answers:
        check_flat(answer, 404)


def test_an_export_of_another_surface_is_collected_here_as_one_file(api: Service) -> None:
    # Given
    body = {"source": "coresignal", "query": {}, "format": "csv"}
    export_id = api.http.post("/v1/exports", json=body).json()["id"]
    work(api, export_id)

    # When
    (name,) = api.http.get(f"/v2/data_requests/{export_id}/files").json()["data_request_files"]
    answer = api.http.get(f"/v2/data_requests/{export_id}/files/{name}")

    # Then
    assert name.endswith(".csv")
    assert answer.headers["Content-Type"].startswith("text/csv")
    assert answer.text.startswith("_id,title\r\n1,")


def test_a_redirect_leads_to_the_file_store_where_the_file_stands_alone(api: Service) -> None:
    # Given
    alone = collected(api, create(api))
    holding(api, 10_001)
    split = collected(api, create(api, V1), "/v1/bulk_collect")

    # When
    (name,) = api.http.get(alone).json()["data_request_files"]
    redirected = api.http.get(f"{alone}/{name}?redirect=true")
    names = api.http.get(split).json()["data_request_files"]
    streamed = api.http.get(f"{split}/{names[0]}?redirect=true")

    # Then
    assert redirected.status_code == 302
    status, headers, body = api.storage.fetch(redirected.headers["Location"])
    assert (status, headers["content-type"]) == (200, "application/gzip")
    assert body == api.http.get(f"{alone}/{name}").content
    assert streamed.status_code == 200
    check_flat(api.http.get(f"{alone}/{name}?redirect=perhaps"), 422, "redirect")
    export_id = alone.split("/")[-2]
    happened = api.engine.store.activity(export_id)
    assert [(one.what, one.detail) for one in happened[-2:]] == [
        ("linked", name),
        ("downloaded", name),
    ]
