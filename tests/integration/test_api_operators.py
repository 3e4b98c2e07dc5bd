"""What keys with the scope `operator` see and do, over the wire."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.api_server import CREATED, POLLED, Service

PATH, BODY = CREATED["native"]


@pytest.fixture
def operator(api: Service) -> dict[str, str]:
    return {"X-API-Key": api.keys.create("ops", ("read", "write", "operator"))}


def make(api: Service, key: str, **fields: Any) -> str:
    answer = api.http.post(PATH, json=BODY | fields, headers={"X-API-Key": key})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def test_an_operator_lists_the_exports_of_all_users_or_of_one(
    api: Service, operator: dict[str, str]
) -> None:
    # Given
    of_ann, of_bob = make(api, api.ann), make(api, api.bob)

    # When
    def listed(query: str = "") -> Any:
        answer = api.http.get(PATH + query, headers=operator).json()
        return [one["id"] for one in answer["exports"]], answer["counts"]["queued"]

    # Then
    assert listed() == ([of_bob, of_ann], 2)
    assert listed("?user=ann") == ([of_ann], 1)
    assert listed("?user=none") == ([], 0)


def test_another_key_may_name_no_user_but_its_own(api: Service) -> None:
    # Given
    make(api, api.bob)
    # When
    foreign, own = api.http.get(f"{PATH}?user=bob"), api.http.get(f"{PATH}?user=ann")
    # Then
    assert (foreign.status_code, foreign.json()["code"]) == (403, "scope_missing")
    assert (own.status_code, own.json()["exports"]) == (200, [])


def test_an_operator_sees_a_foreign_export_but_no_link_until_it_asks_for_the_file(
    api: Service, operator: dict[str, str]
) -> None:
    # Given
    export_id = make(api, api.bob)
    api.finish(export_id)
    # When
    shown = api.http.get(f"{PATH}/{export_id}", headers=operator).json()
    (entry,) = api.http.get(PATH, headers=operator).json()["exports"]
    file = api.http.get(f"{PATH}/{export_id}/file", headers=operator)
    # Then
    assert shown["user_id"] == "bob"
    assert shown["result"]["download_url"] is None
    assert entry["result"]["download_url"] is None
    assert file.status_code == 302
    key = api.keys.find(operator["X-API-Key"])
    assert key is not None
    found = api.http.get(f"{PATH}/{export_id}/activity", headers={"X-API-Key": api.bob}).json()
    assert (found["activity"][-1]["what"], found["activity"][-1]["by"]) == ("linked", key.id)


def test_an_operators_cancellation_stands_in_the_activity(
    api: Service, operator: dict[str, str]
) -> None:
    # Given
    export_id = make(api, api.bob)
    # When
    answer = api.http.post(f"{PATH}/{export_id}/cancel", headers=operator)
    # Then
    assert (answer.status_code, answer.json()["state"]) == (200, "canceled")
    key = api.keys.find(operator["X-API-Key"])
    assert key is not None
    found = api.http.get(f"{PATH}/{export_id}/activity", headers={"X-API-Key": api.bob}).json()
    assert (found["activity"][-1]["what"], found["activity"][-1]["by"]) == ("canceled", key.id)


def test_an_operator_retries_and_deletes_for_the_owner(
    api: Service, operator: dict[str, str]
) -> None:
    # Given
    export_id = make(api, api.bob)
    api.http.post(f"{PATH}/{export_id}/cancel", headers=operator)
    # When
    again = api.http.post(f"{PATH}/{export_id}/retry", headers=operator).json()
    gone = api.http.delete(f"{PATH}/{export_id}", headers=operator)
    # Then
    assert (again["user_id"], again["retry_of"]) == ("bob", export_id)
    assert gone.status_code == 202
    theirs = api.http.get(PATH, headers={"X-API-Key": api.bob}).json()["exports"]
    assert [one["id"] for one in theirs] == [again["id"]]


def test_a_repeated_retry_of_an_operator_has_no_link_to_a_foreign_file(
    api: Service, operator: dict[str, str]
) -> None:
    # Given
    export_id = make(api, api.bob)
    api.http.post(f"{PATH}/{export_id}/cancel", headers=operator)
    headers = operator | {"Idempotency-Key": "again"}
    again = api.http.post(f"{PATH}/{export_id}/retry", headers=headers).json()
    api.finish(again["id"])
    # When
    replayed = api.http.post(f"{PATH}/{export_id}/retry", headers=headers).json()
    # Then
    assert (replayed["id"], replayed["state"]) == (again["id"], "finished")
    assert replayed["result"]["download_url"] is None


def test_an_operator_without_write_changes_nothing(api: Service) -> None:
    # Given
    export_id = make(api, api.bob)
    key = {"X-API-Key": api.keys.create("ops", ("read", "operator"))}
    # When
    answers = [
        api.http.post(f"{PATH}/{export_id}/cancel", headers=key),
        api.http.delete(f"{PATH}/{export_id}", headers=key),
    ]
    # Then
    assert [one.status_code for one in answers] == [403, 403]
    assert api.http.get(f"{PATH}/{export_id}", headers=key).json()["state"] == "queued"


def test_on_the_contracts_of_others_an_operator_is_a_user_like_any(
    api: Service, operator: dict[str, str]
) -> None:
    # Given
    export_id = make(api, api.bob)
    # When
    answer = api.http.get(f"{POLLED['hirebase']}/{export_id}", headers=operator)
    # Then
    assert answer.status_code == 404
