"""The file of an export has the name that its request gives, or one of its own."""

from __future__ import annotations

import pytest

from tests.integration.api_server import CREATED, Service

PATH, BODY = CREATED["native"]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"file_name": "engineers.csv"}, "engineers.csv"),
        ({"file_name": "Löhne"}, "Löhne.csv"),
        ({"file_name": "engineers.csv", "compression": "gzip"}, "engineers.csv.gz"),
        ({"file_name": None}, "board-jobs-2026-01-01-{}.csv"),
    ],
)
def test_the_file_has_the_name_of_the_request(
    api: Service, given: dict[str, object], wanted: str
) -> None:
    """Given a file_name in the request, when the export has ended, then its file has that name."""
    created = api.http.post(PATH, json={**BODY, **given})
    assert created.status_code == 202
    export_id = created.json()["id"]
    api.finish(export_id)
    result = api.http.get(f"{PATH}/{export_id}").json()["result"]
    assert result["file_name"] == wanted.format(export_id[:8])


def test_the_same_request_under_another_name_is_another_request(api: Service) -> None:
    """Given an Idempotency-Key, when it is used with another file_name, then it is refused."""
    headers = {"Idempotency-Key": "once"}
    answers = [
        api.http.post(PATH, json={**BODY, "file_name": name}, headers=headers)
        for name in ("a.csv", "a.csv", "b.csv")
    ]
    assert [answer.status_code for answer in answers] == [202, 202, 422]
