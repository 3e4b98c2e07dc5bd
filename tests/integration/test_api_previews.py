"""The first rows of an export, over the wire."""

from __future__ import annotations

from typing import Any

from exporter.core.checkpoints import Checkpoint
from exporter.storage.base import FileHeaders
from exporter.storage.keys import preview_key
from tests.integration.api_server import CREATED, LEASE, Service

PATH, BODY = CREATED["native"]
ROWS = b"_id\r\n1\r\n"


def make(api: Service, **fields: Any) -> str:
    return str(api.http.post(PATH, json=BODY | fields).json()["id"])


def start(api: Service, export_id: str) -> None:
    """Does the first slice of a worker."""
    claim = api.engine.store.claim("worker-test-1", lease=LEASE)
    assert claim is not None
    api.storage.put_small(preview_key(export_id), ROWS, FileHeaders("text/csv", "jobs.csv"))
    at = Checkpoint(cursor="2", rows=1, pages=1)
    api.engine.store.commit(export_id, claim.fence, at, lease=LEASE, progress=0.1)


def test_the_first_rows_of_a_running_export_are_marked_as_partial(api: Service) -> None:
    # Given
    export_id = make(api)
    before = api.http.get(f"{PATH}/{export_id}/preview")
    start(api, export_id)
    # When
    answer = api.http.get(f"{PATH}/{export_id}/preview")
    # Then
    assert (before.status_code, before.json()["code"]) == (409, "no_rows")
    assert (answer.status_code, answer.content) == (200, ROWS)
    assert answer.headers["X-Exporter-Partial"] == "true"
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert answer.headers["Cache-Control"] == "private, no-store"


def test_those_of_a_finished_export_are_whole_until_its_file_is_deleted(api: Service) -> None:
    # Given
    export_id = make(api)
    api.finish(export_id)
    # When
    answer = api.http.get(f"{PATH}/{export_id}/preview")
    api.clock.advance(8 * 86400)
    later = api.http.get(f"{PATH}/{export_id}/preview")
    # Then
    assert (answer.status_code, answer.content) == (200, ROWS)
    assert "X-Exporter-Partial" not in answer.headers
    assert (later.status_code, later.json()["code"]) == (409, "no_rows")
    assert "deleted" in later.json()["detail"]


def test_a_foreign_export_has_no_first_rows_but_for_operators_whom_the_activity_names(
    api: Service,
) -> None:
    # Given
    export_id = make(api)
    api.finish(export_id)
    operator = api.keys.create("ops", ("read", "operator"))
    # When
    foreign, by_operator = (
        api.http.get(f"{PATH}/{export_id}/preview", headers={"X-API-Key": key})
        for key in (api.bob, operator)
    )
    # Then
    assert foreign.status_code == 404
    assert by_operator.content == ROWS
    happened = api.http.get(f"{PATH}/{export_id}/activity").json()["activity"]
    assert [one["by"] for one in happened if one["what"] == "previewed"] == [
        api.keys.find(operator).id  # type: ignore[union-attr]
    ]


def test_a_canceled_export_says_that_its_rows_are_gone(api: Service) -> None:
    # Given
    export_id = make(api)
    api.http.post(f"{PATH}/{export_id}/cancel")
    # When
    answer = api.http.get(f"{PATH}/{export_id}/preview")
    # Then
    assert (answer.status_code, answer.json()["code"]) == (409, "no_rows")
    assert "canceled" in answer.json()["detail"]
