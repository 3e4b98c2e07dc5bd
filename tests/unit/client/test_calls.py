"""What the client sends, which answers it tries again, and what its errors say."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from exporter.client import (
    ApiError,
    ClientError,
    Conflict,
    ConnectionFailed,
    Exporter,
    Forbidden,
    InvalidRequest,
    NotFound,
    QuotaExceeded,
    ServerFailed,
    Unauthorized,
    WaitExpired,
)
from tests.unit.client.conftest import KEY, Twin
from tests.upstreams import Answer, Reset, reply, serving

Make = Callable[..., Twin]


def record(state: str = "queued", **more: Any) -> bytes:
    return reply(200, {"id": "e1", "state": state, **more})


def problem(status: int, code: str = "not_found", **headers: Any) -> bytes:
    return reply(status, {"title": "No", "detail": "no such", "code": code}, **headers)


@pytest.mark.external
def test_it_imports_nothing_of_the_service_and_no_library_but_httpx_and_msgspec() -> None:
    # When
    code = """
import sys
import exporter.client
found = {name.partition(".")[0] for name in sys.modules}
print(sorted(name for name in sys.modules if name.startswith("exporter.")))
print(sorted(found & {"pydantic", "redis", "boto3", "celery", "fastapi", "structlog", "orjson"}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    ours, others = map(ast.literal_eval, done.stdout.splitlines())
    # Then
    assert [name for name in ours if not name.startswith("exporter.client")] == []
    assert others == []


@pytest.mark.external
def test_an_export_is_created_once_however_often_it_is_tried(twin: Make) -> None:
    # Given: a service whose first answer is lost, and whose proxy then answers
    with serving([Reset()], reply(502, "<html>"), record("queued")) as service:
        # When
        made = twin(service.url).create("board", {"job_titles": ["cook"]}, format="json", limit=3)
    # Then
    assert (made.id, made.state) == ("e1", "queued")
    assert len(service.asked) == 3
    assert len({one.headers["idempotency-key"] for one in service.asked}) == 1
    assert {one.headers["authorization"] for one in service.asked} == {f"Bearer {KEY}"}
    assert service.asked[0].json == {
        "source": "board",
        "query": {"job_titles": ["cook"]},
        "format": "json",
        "limit": 3,
    }


@pytest.mark.external
@pytest.mark.parametrize(
    ("answer", "tries"),
    [
        (problem(408), 3),
        (problem(429), 3),
        (problem(500), 3),
        (problem(503, retry_after="0"), 3),
        (problem(503, retry_after_ms="1"), 3),
        (problem(503, retry_after="Mon, 02 Mar 2020 09:15:00 GMT"), 3),
        # Longer than anybody waits for.
        (problem(503, retry_after="3600"), 1),
        (problem(400), 1),
        (problem(404), 1),
        (problem(409), 1),
        # The service knows better.
        (problem(409, x_should_retry="true"), 3),
        (problem(503, x_should_retry="false"), 1),
        ([Reset()], 3),
    ],
)
def test_what_may_succeed_is_tried_again_and_nothing_else(
    twin: Make, answer: Answer, tries: int
) -> None:
    # Given
    # When
    with serving(answer) as service, pytest.raises(ClientError):
        twin(service.url).get("e1")
    # Then
    assert len(service.asked) == tries


@pytest.mark.external
def test_a_named_pause_is_kept(twin: Make) -> None:
    # Given
    with serving(problem(429, retry_after_ms="120"), record()) as service:
        began = time.monotonic()
        # When
        twin(service.url).get("e1")
    # Then
    assert time.monotonic() - began >= 0.12


@pytest.mark.external
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, Unauthorized),
        (402, QuotaExceeded),
        (403, Forbidden),
        (404, NotFound),
        (409, Conflict),
        (422, InvalidRequest),
        (429, QuotaExceeded),
        (500, ServerFailed),
        (418, ApiError),
    ],
)
def test_an_error_has_its_code_its_text_and_the_wrong_fields(
    twin: Make, status: int, kind: type[ApiError]
) -> None:
    # Given
    body = {
        "title": "No",
        "status": status,
        "detail": "2 fields are wrong",
        "code": "some_code",
        "errors": [{"detail": "too long", "code": "x", "pointer": "/name"}],
    }
    # When
    with serving(reply(status, body, x_request_id="r1")) as service, pytest.raises(kind) as error:
        twin(service.url, max_retries=0).get("e1")
    # Then
    found = error.value
    assert type(found) is kind
    assert (found.status, found.code, found.request_id) == (status, "some_code", "r1")
    assert str(found) == f"{status} No: 2 fields are wrong\n  /name: too long"


@pytest.mark.external
def test_what_is_no_exporter_is_named(twin: Make) -> None:
    # Given
    said = "is not an exporter: GET /v1/exports/e1 answered 200"
    # When / Then
    with serving(reply(200, "<html>")) as service, pytest.raises(ServerFailed, match=said):
        twin(service.url, max_retries=0).get("e1")


@pytest.mark.external
def test_a_service_that_is_away_is_named(twin: Make) -> None:
    # When / Then
    with pytest.raises(ConnectionFailed, match=r"http://127\.0\.0\.1:9 does not answer: "):
        twin("http://127.0.0.1:9/", max_retries=0).get("e1")


@pytest.mark.parametrize("key", ["", " \n", "exp_é", "exp_1\nexp_2"])
def test_what_can_be_no_key_is_refused_without_showing_it(key: str) -> None:
    # When
    with pytest.raises(ValueError, match="API key") as refused:
        Exporter("http://127.0.0.1:9", key)
    # Then
    assert "exp_" not in str(refused.value)


@pytest.mark.parametrize("url", ["http://h:port", "ftp://h", "exports.example.com", ""])
def test_what_can_be_no_address_is_refused(url: str) -> None:
    # When / Then
    with pytest.raises(ValueError, match="is not an address of a service"):
        Exporter(url, "exp_1")


@pytest.mark.external
def test_all_pages_of_the_list_are_asked_for_as_they_are_needed() -> None:
    # Given
    pages = [
        reply(200, {"exports": [{"id": "a", "state": "queued"}], "next_cursor": "c 1"}),
        reply(200, {"exports": [{"id": "b", "state": "failed"}], "next_cursor": None}),
    ]
    with serving(*pages) as service, Exporter(service.url, KEY) as client:
        # When
        found = client.list(page_size=1)
        first = next(found)
        asked_before = len(service.asked)
        rest = list(found)
    # Then
    assert [first.id, *(one.id for one in rest)] == ["a", "b"]
    assert asked_before == 1
    assert service.asked[1].line == "GET /v1/exports?limit=1&cursor=c+1 HTTP/1.1"


@pytest.mark.external
def test_an_answer_of_a_later_version_keeps_its_fields_and_one_of_an_earlier_is_read(
    twin: Make,
) -> None:
    # Given
    later = {
        "id": "e1",
        "state": "finished",
        "mood": "good",
        "result": {"file_size": 8, "record_count": 1, "file_name": "a.csv", "sha": "x"},
    }
    with serving(reply(200, later), record()) as service:
        # When
        new, old = twin(service.url).get("e1"), twin(service.url).get("e1")
    # Then
    assert new.extra == {"mood": "good"}
    assert new.result.extra == {"sha": "x"}
    assert new.to_dict()["mood"] == "good"
    assert new.to_dict()["result"]["sha"] == "x"
    assert (old.progress, old.result, old.extra) == (0.0, None, {})


@pytest.mark.external
def test_a_watcher_sees_every_record_up_to_the_last(twin: Make) -> None:
    # Given
    seen: list[str] = []
    with serving(record("queued"), record("processing"), record("finished")) as service:
        # When
        last = twin(service.url).wait("e1", watch=lambda found: seen.append(found.state))
    # Then
    assert last.state == "finished"
    assert seen == ["queued", "processing", "finished"]


@pytest.mark.external
def test_without_a_watcher_the_service_holds_the_poll(twin: Make) -> None:
    # Given
    with serving(record("queued"), record("canceled")) as service:
        # When
        last = twin(service.url).wait("e1")
    # Then
    assert last.has_ended
    assert {one.line for one in service.asked} == {"GET /v1/exports/e1?wait=30 HTTP/1.1"}


@pytest.mark.external
def test_a_wait_that_is_too_long_ends_with_the_last_record(twin: Make) -> None:
    # Given
    # When
    with serving(record("processing")) as service, pytest.raises(WaitExpired) as expired:
        twin(service.url).wait("e1", timeout=0.05)
    # Then
    assert expired.value.export.state == "processing"


@pytest.mark.external
def test_a_service_that_restarts_is_asked_again_and_shown_as_the_reason_of_the_wait(
    twin: Make,
) -> None:
    # Given: it vanishes, its proxy says so, then its store is not there yet
    seen: list[Any] = []
    first = record("processing", phase="reading", progress=0.4)
    away: list[Answer] = [[Reset()], reply(502, "<html>"), problem(503)]
    with serving(first, *away, record("failed")) as service:
        # When
        last = twin(service.url).wait("e1", watch=seen.append)
    # Then
    assert last.state == "failed"
    assert [one.phase for one in seen] == ["reading", *3 * ["waiting"], ""]
    assert "503 No: no such" in seen[3].waiting_for
    assert seen[3].progress == 0.4


@pytest.mark.external
@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_ends_the_wait_at_once(twin: Make, status: int) -> None:
    # Given
    # When / Then
    with (
        serving(record("queued"), problem(status)) as service,
        pytest.raises(ApiError, match=f"{status} No: no such"),
    ):
        twin(service.url).wait("e1", watch=lambda _: None)
    assert len(service.asked) == 2


@pytest.mark.external
def test_an_export_is_canceled_retried_and_deleted(twin: Make) -> None:
    # Given
    with serving(record("canceled")) as service:
        # When
        client = twin(service.url)
        assert client.cancel("e/1").state == "canceled"
        assert client.retry("e1").id == "e1"
        assert client.delete("e1") is None
    # Then
    assert [one.line.rpartition(" ")[0] for one in service.asked] == [
        "POST /v1/exports/e%2F1/cancel",
        "POST /v1/exports/e1/retry",
        "DELETE /v1/exports/e1",
    ]
    assert ["idempotency-key" in one.headers for one in service.asked] == [False, True, False]
