"""The same data request once more: told from the first, replayed, or begun again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from exporter.core.exports import Export
from exporter.store.memory.store import MemoryStore
from tests.integration.api_server import Service
from tests.integration.coresignal.desk import V1, V2, check_flat, create, work


def test_a_search_that_is_under_way_is_not_started_again_and_the_first_is_named(
    api: Service,
) -> None:
    # Given
    first = create(api).json()["request_id"]

    # When
    again = create(api)
    other_limit = create(api, limit=5)
    other_filter = create(api, filters={"title": "Painter"})
    other_contract = create(api, V1)
    other_user = api.http.post(
        f"{V2}/filter", json={"filters": {"title": "Welder"}}, headers={"apikey": api.bob}
    )

    # Then
    assert again.status_code == 409
    assert again.json() == {"detail": "Identical data request is already in progress."}
    assert again.headers["X-Data-Request-Id"] == first
    assert again.headers["Location"] == f"/v2/data_requests/{first}/files"
    for answer in (other_limit, other_filter, other_contract, other_user):
        assert answer.status_code == 201


def test_a_search_that_has_ended_may_be_collected_again_any_number_of_times(api: Service) -> None:
    # Given
    seen = set()
    for turn in range(4):
        # When
        answer = create(api)
        while_under_way = create(api)

        # Then
        export_id = answer.json()["request_id"]
        seen.add(export_id)
        assert while_under_way.headers["X-Data-Request-Id"] == export_id
        if turn % 2:
            api.engine.cancel("ann", export_id)
        else:
            work(api, export_id)
    # Given: one that was deleted
    api.engine.delete("ann", export_id)

    # When
    after = create(api)

    # Then
    assert after.status_code == 201
    assert len(seen | {after.json()["request_id"]}) == 5


def test_the_tenth_identical_search_costs_as_much_as_the_first(
    api: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    for _ in range(10):
        api.engine.cancel("ann", create(api).json()["request_id"])
    asked = []
    make = type(api.engine.store).create

    def count(self: MemoryStore, *arguments: Any) -> Export:
        asked.append(arguments)
        return make(self, *arguments)

    monkeypatch.setattr(MemoryStore, "create", count)

    # When
    answer = create(api)

    # Then
    assert answer.status_code == 201
    assert len(asked) == 1


def test_of_many_at_once_exactly_one_is_the_first(api: Service) -> None:
    # When
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: create(api), range(24)))

    # Then
    created = [answer for answer in answers if answer.status_code == 201]
    (export_id,) = (answer.json()["request_id"] for answer in created)
    for answer in answers:
        if answer is not created[0]:
            assert answer.status_code == 409
            assert answer.headers["X-Data-Request-Id"] == export_id


def test_an_idempotency_key_replays_and_decides_instead_of_the_search(api: Service) -> None:
    # Given
    body = {"filters": {"title": "Welder"}}
    first = api.http.post(f"{V2}/filter", json=body, headers={"Idempotency-Key": "a"})

    # When
    replay = api.http.post(f"{V2}/filter", json=body, headers={"Idempotency-Key": "a"})
    meant = api.http.post(f"{V2}/filter", json=body, headers={"Idempotency-Key": "b"})
    reused = api.http.post(f"{V2}/filter", json={"filters": {}}, headers={"Idempotency-Key": "a"})
    file = {"ids_file": b"1\n2\n"}
    ids = [
        api.http.post(f"{V2}/id_file", files=file, headers={"Idempotency-Key": "c"})
        for _ in range(2)
    ]
    others = api.http.post(
        f"{V2}/id_file", files={"ids_file": b"1\n3\n"}, headers={"Idempotency-Key": "c"}
    )

    # Then
    assert replay.status_code == 201
    assert replay.json() == first.json()
    assert replay.headers["Idempotency-Replayed"] == "true"
    assert meant.status_code == 201
    assert meant.json() != first.json()
    check_flat(reused, 422, "Idempotency-Key")
    assert ids[0].json() == ids[1].json()
    check_flat(others, 422, "Idempotency-Key")
