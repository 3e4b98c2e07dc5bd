"""Over the wire: creating once, deleting, trying again, waiting, and the service's numbers."""

from __future__ import annotations

import socket
import threading
import time
from datetime import timedelta
from typing import Any

import httpx
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from exporter.api.app import create_app
from exporter.core.exports import State
from exporter.errors import StorageUnavailable
from exporter.local.redis import RedisServer
from exporter.storage import keys as object_keys
from exporter.storage.base import FileHeaders
from exporter.store.redis.api_keys import KeyRing
from exporter.store.redis.store import RedisStore
from tests.integration.api_server import (
    CREATED,
    LEASE,
    POLLED,
    Server,
    Service,
    captured_logs,
    make_engine,
)

SURFACES = ("hirebase", "native")
STORE_DATABASE = 6


def create(api: Service, surface: str, key: str | None = None, **changes: Any) -> httpx.Response:
    path, body = CREATED[surface]
    headers = {"Idempotency-Key": key} if key is not None else {}
    return api.http.post(path, json={**body, **changes}, headers=headers)


# -- creating once ---------------------------------------------------------------------------------


@pytest.mark.parametrize("surface", SURFACES)
def test_the_same_request_with_the_same_key_is_one_export(api: Service, surface: str) -> None:
    # Given
    with captured_logs() as lines:
        first = create(api, surface, '"8e03978e-40d5"')

        # When the same is asked again: the key without quotes, a default spelled out
        api.finish(first.json()["id"])
        again = create(api, surface, "8e03978e-40d5", priority=0)

    # Then
    assert (first.status_code, again.status_code) == (202, 202)
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.headers["Location"] == first.headers["Location"]
    assert again.json()["id"] == first.json()["id"]
    assert again.json()["state"] == "finished"
    assert [line["event"] for line in lines] == ["export.created", "export.replayed"]


@pytest.mark.parametrize("surface", SURFACES)
def test_a_key_with_another_request_is_refused_and_creates_nothing(
    api: Service, surface: str
) -> None:
    # Given
    create(api, surface, "k")

    # When
    other = create(api, surface, "k", format="json")

    # Then
    assert other.status_code == 422
    if surface == "native":
        assert other.json()["code"] == "idempotency_key_reused"
    else:
        assert other.json()["detail"][0]["type"] == "idempotency_key_reused"
    assert len(api.http.get("/v1/exports").json()["exports"]) == 1


def test_a_key_of_another_user_or_none_is_another_request(api: Service) -> None:
    # When
    path, body = CREATED["native"]
    made = [
        create(api, "native", "k"),
        api.http.post(path, json=body, headers={"X-API-Key": api.bob, "Idempotency-Key": "k"}),
        create(api, "native"),
        create(api, "native"),
    ]

    # Then
    assert len({answer.json()["id"] for answer in made}) == 4


def test_a_key_whose_export_was_deleted_does_not_bring_it_back(api: Service) -> None:
    # Given
    export_id = create(api, "native", "k").json()["id"]
    api.http.delete(f"/v1/exports/{export_id}")

    # When
    late = create(api, "native", "k")

    # Then
    assert (late.status_code, late.json()["code"]) == (409, "idempotency_key_spent")
    assert api.http.get("/v1/exports").json()["exports"] == []


@pytest.mark.parametrize(
    "key", ["", '""', '"open', "a b", '"a b"', "k" * 256, '"a";p=1', '"a\\b"', "caf\u00e9"]
)
@pytest.mark.parametrize("surface", SURFACES)
def test_a_key_that_is_none_is_refused_naming_the_header(
    api: Service, surface: str, key: str
) -> None:
    # When
    path, body = CREATED[surface]
    headers = [(b"Idempotency-Key", key.encode("latin-1"))]
    answer = api.http.post(path, json=body, headers=headers)

    # Then
    if surface == "native":
        assert answer.status_code == 400
        assert answer.json()["code"] == "idempotency_key_invalid"
        assert answer.json()["errors"][0]["header"] == "idempotency-key"
    else:
        assert answer.status_code == 422
        assert answer.json()["detail"][0]["loc"] == ["header", "idempotency-key"]


def test_two_keys_in_one_request_are_refused(api: Service) -> None:
    # When
    path, body = CREATED["native"]
    answer = api.http.post(
        path, json=body, headers=[("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    )

    # Then
    assert answer.status_code == 400


def test_of_racing_requests_with_one_key_one_creates(api: Service) -> None:
    # Given
    answers: list[httpx.Response] = []
    threads = [
        threading.Thread(target=lambda: answers.append(create(api, "hirebase", "k")))
        for _ in range(8)
    ]

    # When
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    # Then
    assert [answer.status_code for answer in answers] == [202] * 8
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("Idempotency-Replayed" in answer.headers for answer in answers) == 7


class Deaf(redis.Connection):
    """A connection that, armed, is cut after the request was sent, before the answer is read."""

    armed = False

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        answer = super().read_response(*args, **kwargs)
        if Deaf.armed:
            Deaf.armed = False
            self.disconnect()  # type: ignore[no-untyped-call]
            raise redis.ConnectionError("the answer was lost")
        return answer


@pytest.mark.parametrize("surface", SURFACES)
def test_after_a_503_the_same_key_gives_the_export_that_was_created_all_the_same(
    api: Service, server: Server, redis_server: RedisServer, surface: str
) -> None:
    # Given a store that does not ask again by itself, and whose answer to a create is lost
    pool = redis.ConnectionPool.from_url(
        redis_server.url.replace("/0", f"/{STORE_DATABASE}"),
        connection_class=Deaf,
        retry=Retry(NoBackoff(), 0),
    )
    with redis.Redis(connection_pool=pool) as client:
        client.flushdb()
        store = RedisStore(client)
        server.app = create_app(make_engine(api.clock, store, api.storage), api.keys)
        create(api, surface)
        Deaf.armed = True
        lost = create(api, surface, "k")

        # When
        again = create(api, surface, "k")

        # Then
        assert lost.status_code == 503
        assert "Idempotency-Key" in lost.text
        assert again.status_code == 202
        assert again.headers["Idempotency-Replayed"] == "true"
        assert len(store.list("ann", limit=10).exports) == 2
    pool.disconnect()


def test_while_redis_hangs_a_create_is_answered_within_five_seconds(
    api: Service, server: Server
) -> None:
    # Given a port that takes every connection and never says a word
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"redis://127.0.0.1:{listener.getsockname()[1]}/0"
        store = RedisStore.connect(url, patient=False)
        engine = make_engine(api.clock, store, api.storage)
        server.app = create_app(engine, KeyRing(store.client))
        began = time.monotonic()

        # When
        answer = create(api, "native")

        # Then
        assert answer.status_code == 503
        assert time.monotonic() - began < 5


# -- deleting --------------------------------------------------------------------------------------


def gone(api: Service, export_id: str) -> bool:
    answers = [
        api.http.get(f"/v1/exports/{export_id}"),
        api.http.get(f"/v2/tasks/{export_id}"),
        api.http.post(f"/v1/exports/{export_id}/cancel"),
        api.http.post(f"/v2/tasks/{export_id}/cancel"),
    ]
    listed = {one["id"] for one in api.http.get("/v1/exports").json()["exports"]}
    return {answer.status_code for answer in answers} == {404} and export_id not in listed


def published(api: Service) -> str:
    """The id of a finished export whose file stands where files of exports stand."""
    export_id = str(create(api, "native").json()["id"])
    api.finish(export_id)
    key = f"{object_keys.prefix(export_id)}1-ab/jobs.csv"
    api.storage.put_small(key, b"_id\r\n1\r\n", FileHeaders("text/csv", "jobs.csv"))
    return export_id


def left(api: Service, export_id: str) -> list[str]:
    """What an export has in the bucket once deleting had its time: that comes after the answer."""
    until = time.monotonic() + 5
    while True:
        keys = [info.key for info in api.storage.objects(object_keys.prefix(export_id))]
        if not keys or time.monotonic() > until:
            return keys
        time.sleep(0.01)


@pytest.mark.parametrize("surface", SURFACES)
def test_a_deleted_export_is_gone_at_once_and_so_is_its_file(api: Service, surface: str) -> None:
    # Given
    export_id = published(api)

    # When
    deleted = api.http.delete(f"{POLLED[surface]}/{export_id}")

    # Then
    assert deleted.status_code == 202
    assert deleted.json() == {"id": export_id, "state": "finished"}
    assert gone(api, export_id)
    assert left(api, export_id) == []
    again = api.http.delete(f"{POLLED[surface]}/{export_id}")
    assert (again.status_code, again.json()) == (202, deleted.json())
    api.clock.advance(61)
    assert api.http.delete(f"{POLLED[surface]}/{export_id}").status_code == 404


def test_deleting_does_not_wait_for_s3_and_cleaning_does_it_later(api: Service) -> None:
    # Given
    export_id = published(api)
    asked = threading.Event()

    def silent(operation: str, key: str) -> None:
        asked.set()
        raise StorageUnavailable("S3 did not answer")

    api.storage.before = silent

    # When
    deleted = api.http.delete(f"/v1/exports/{export_id}")

    # Then
    assert deleted.status_code == 202
    assert gone(api, export_id)
    assert asked.wait(5)
    api.storage.before = None
    assert api.engine.store.deleted_exports() == (export_id,)
    api.engine.purge(export_id)
    assert left(api, export_id) == []


def test_a_deleted_export_at_work_is_gone_at_once_and_its_worker_told(api: Service) -> None:
    # Given
    export_id = create(api, "native").json()["id"]
    claim = api.engine.store.claim("worker-test-1", lease=LEASE)
    assert claim is not None

    # When
    deleted = api.http.delete(f"/v1/exports/{export_id}")

    # Then
    assert (deleted.status_code, deleted.json()["state"]) == (202, "processing")
    assert gone(api, export_id)
    assert api.engine.store.renew(export_id, claim.fence, lease=LEASE).value == "cancel"


def test_nobody_deletes_another_users_export(api: Service) -> None:
    # Given
    export_id = create(api, "native").json()["id"]

    # When
    answers = [
        api.http.delete(f"{path}/{export_id}", headers={"X-API-Key": api.bob})
        for path in POLLED.values()
    ]

    # Then
    assert [answer.status_code for answer in answers] == [404, 404]
    assert api.http.get(f"/v1/exports/{export_id}").status_code == 200


# -- trying again ----------------------------------------------------------------------------------


def failed(api: Service) -> str:
    export_id = str(create(api, "native", priority=4).json()["id"])
    claim = api.engine.store.claim("worker-test-1", lease=LEASE)
    assert claim is not None
    keep = timedelta(days=1)
    api.engine.store.end(export_id, claim.fence, State.FAILED, error="no", keep_record=keep)
    return export_id


def test_a_retry_is_a_new_export_of_the_same_request(api: Service) -> None:
    # Given
    export_id = failed(api)
    before = api.http.get(f"/v1/exports/{export_id}").json()

    # When
    headers = {"Idempotency-Key": "k"}
    tries = [api.http.post(f"/v1/exports/{export_id}/retry", headers=headers) for _ in range(2)]

    # Then
    new = tries[0].json()
    assert [answer.status_code for answer in tries] == [202, 202]
    assert tries[1].json()["id"] == new["id"] != export_id
    assert tries[0].headers["Location"].endswith(new["id"])
    assert (new["state"], new["error"]) == ("queued", None)
    same = ("source", "query", "format", "columns", "limit", "priority", "csv_safe")
    assert {name: new[name] for name in same} == {name: before[name] for name in same}
    assert api.http.get(f"/v1/exports/{export_id}").json() == before


def test_only_what_failed_or_was_canceled_can_be_tried_again(api: Service) -> None:
    # Given
    queued = create(api, "native").json()["id"]

    # When
    refused = api.http.post(f"/v1/exports/{queued}/retry")
    unknown = api.http.post("/v1/exports/nobody/retry")
    api.http.post(f"/v1/exports/{queued}/cancel")
    taken = api.http.post(f"/v1/exports/{queued}/retry")

    # Then
    assert (refused.status_code, refused.json()["code"]) == (409, "not_retryable")
    assert unknown.status_code == 404
    assert taken.status_code == 202


# -- waiting ---------------------------------------------------------------------------------------


def test_a_poll_that_waits_in_vain_is_answered_all_the_same(api: Service) -> None:
    # Given
    export_id = create(api, "native").json()["id"]
    began = time.monotonic()

    # When
    answer = api.http.get(f"/v1/exports/{export_id}?wait=1")

    # Then
    assert (answer.status_code, answer.json()["state"]) == (200, "queued")
    assert time.monotonic() - began >= 0.9
    assert api.http.get(f"/v1/exports/{export_id}?wait=-1").status_code == 422


# -- the result and the numbers --------------------------------------------------------------------


@pytest.mark.parametrize("surface", SURFACES)
def test_a_result_tells_what_was_changed_and_left_out(api: Service, surface: str) -> None:
    # Given
    export_id = create(api, surface).json()["id"]
    api.finish(export_id)

    # When
    result = api.http.get(f"{POLLED[surface]}/{export_id}").json()["result"]

    # Then
    assert result["nulled_numbers"] == 4
    assert result["completeness"]["duplicates_removed"] == 3
    assert result["completeness"]["outcome"] == "complete"


def test_the_numbers_are_read_without_a_key(api: Service) -> None:
    # Given
    create(api, "native", "k")
    create(api, "native", "k")

    # When
    answer = httpx.get(f"{api.http.base_url}/metrics")

    # Then
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = answer.text.splitlines()
    assert "exporter_exports_created_total 1" in lines
    assert "exporter_exports_replayed_total 1" in lines
    assert 'exporter_ready_exports{level="0"} 1' in lines
