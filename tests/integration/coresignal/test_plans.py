"""What a key's plan and credits allow of bulk collection."""

from __future__ import annotations

import httpx

from exporter.core.plans import Plan
from exporter.store.memory.store import MemoryStore
from tests.integration.api_server import Service
from tests.integration.coresignal.desk import V1, V2, check_flat, holding


def test_a_key_whose_plan_lacks_bulk_collection_is_refused(api: Service) -> None:
    # Given
    key = api.keys.create("cid", plan=Plan(key_id=None, features=frozenset({"export"})))
    headers = {"apikey": key}

    with httpx.Client(base_url=api.http.base_url, headers=headers) as cid:
        # When
        answers = [
            cid.post(f"{V2}/filter", json={"filters": {}}),
            cid.post(f"{V1}/id_file", files={"ids_file": b"1\n"}),
        ]

    # Then
    for answer in answers:
        check_flat(answer, 403, "bulk")


def metered(api: Service, credits_left: int) -> httpx.Client:
    """A client whose key may spend so many credits."""
    key = api.keys.create("cid", balance=credits_left)
    found = api.keys.find(key)
    assert found is not None
    assert isinstance(api.engine.store, MemoryStore)
    api.engine.store.accounts.open(found.id, credits_left)
    return httpx.Client(base_url=api.http.base_url, headers={"apikey": key})


def test_too_few_credits_are_told_in_the_vendors_words(api: Service) -> None:
    # Given
    holding(api, 50)

    with metered(api, 10) as cid:
        # When
        answers = [
            cid.post(f"{V2}/filter", json={"filters": {}}),
            cid.post(f"{V1}/filter", json={"filters": {}}),
            cid.post(f"{V2}/ids", json={"ids": list(range(11))}),
        ]
        within = cid.post(f"{V2}/filter", json={"filters": {}, "limit": 10})

    # Then
    for answer in answers:
        assert answer.status_code == 402
        assert answer.json() == {"detail": "Insufficient credits"}
    assert within.status_code == 201


def test_a_metered_key_sets_aside_what_matches_and_not_the_most_that_may(api: Service) -> None:
    # Given
    holding(api, 50)
    with metered(api, 60) as cid:
        # When
        answer = cid.post(f"{V2}/filter", json={"filters": {}})
        again = cid.post(f"{V2}/filter", json={"filters": {}})
        holding(api, 10_001)
        too_many = cid.post(f"{V2}/filter", json={"filters": {"title": "Painter"}})

    # Then
    export = api.engine.store.get(answer.json()["request_id"])
    assert export is not None
    assert (export.spec.reserved, export.spec.limit) == (50, 50)
    check_flat(again, 409)
    check_flat(too_many, 422, "Maximum is 10,000 IDs")
