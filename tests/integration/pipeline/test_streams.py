"""A file of jobs while it is sent: how a broken one shows, and what a caller holds."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import requests

from exporter.api.files import streams
from exporter.contracts.pipeline import COLUMNS
from exporter.core import limits
from exporter.errors import SourceUnavailable
from tests.integration.api_server import captured_logs
from tests.integration.pipeline.desk import PATH, Make, Service, flat
from tests.waiting import until


def by_http_client(url: str, key: str, encoding: str) -> None:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
    headers = {"Authorization": f"Bearer {key}", "Accept-Encoding": encoding}
    connection.request("GET", f"{parts.path}?{parts.query}", headers=headers)
    try:
        with connection.getresponse() as answer:
            assert answer.status == 200
            answer.read()
    finally:
        connection.close()


def by_httpx(url: str, key: str, encoding: str) -> None:
    headers = {"Authorization": f"Bearer {key}", "Accept-Encoding": encoding}
    httpx.get(url, headers=headers, timeout=20).raise_for_status()


def by_requests(url: str, key: str, encoding: str) -> None:
    headers = {"Authorization": f"Bearer {key}", "Accept-Encoding": encoding}
    requests.get(url, headers=headers, timeout=20).raise_for_status()


def by_curl(url: str, key: str, encoding: str) -> None:
    headers = ["-H", f"Authorization: Bearer {key}", "-H", f"Accept-Encoding: {encoding}"]
    subprocess.run(
        ["curl", "-sS", "--fail", "--max-time", "20", *headers, "-o", os.devnull, url],
        check=True,
        capture_output=True,
    )


@pytest.mark.parametrize("get", [by_http_client, by_httpx, by_requests, by_curl])
@pytest.mark.parametrize("encoding", ["identity", "gzip"])
@pytest.mark.parametrize("fault", ["fails", "gives less"])
@pytest.mark.parametrize("wanted", ["csv", "json"])
def test_every_client_notices_that_a_file_is_not_whole(
    api: Service,
    monkeypatch: pytest.MonkeyPatch,
    get: Callable[[str, str, str], None],
    encoding: str,
    fault: str,
    wanted: str,
) -> None:
    # Given
    api.fill(1_000)
    url = f"{str(api.http.base_url).rstrip('/')}{PATH}?format={wanted}"
    get(url, api.ann, encoding)
    whole, pages = api.table.page, 0

    def faulty(*args: Any, **options: Any) -> Any:
        nonlocal pages
        pages += 1
        if fault == "fails" and pages == 7:
            raise SourceUnavailable("the database went away")
        rows, after = whole(*args, **options)
        return (rows, None) if pages == 7 else (rows, after)

    monkeypatch.setattr(api.table, "page", faulty)

    # When / Then
    failures = (
        http.client.IncompleteRead,
        httpx.RemoteProtocolError,
        requests.exceptions.ChunkedEncodingError,
        subprocess.CalledProcessError,
    )
    with pytest.raises(failures):
        get(url, api.ann, encoding)
    assert pages == 7
    until(api.idle)


def test_the_first_byte_leaves_before_the_first_job_is_read(
    api: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    api.fill(10)
    whole, go_on = api.table.page, threading.Event()

    def late(*args: Any, **options: Any) -> Any:
        assert go_on.wait(20)
        return whole(*args, **options)

    monkeypatch.setattr(api.table, "page", late)

    for encoding in ("identity", "gzip"):
        go_on.clear()
        # When
        with api.http.stream("GET", PATH, headers={"Accept-Encoding": encoding}) as answer:
            pieces = answer.iter_bytes()
            begin = next(pieces)
            go_on.set()
            rest = b"".join(pieces)
        # Then
        assert begin == b'{"exported_at":"2026-01-01T00:00:00Z","total":10,"jobs":['
        assert len(json.loads(begin + rest)["jobs"]) == 10


def test_a_caller_that_leaves_ends_the_reading_and_frees_the_connection(api: Service) -> None:
    # Given
    api.fill(30_000)

    # When
    with api.http.stream("GET", PATH) as answer:
        read = answer.iter_raw()
        next(read)
        assert not api.idle()

    # Then
    until(api.idle)


def test_a_caller_that_took_all_of_it_is_not_said_to_have_left(api: Service) -> None:
    # Given
    api.fill(250)

    # When
    with captured_logs() as lines:
        api.http.get(PATH)
        until(api.idle)
        api.http.get("/health/live")

    # Then
    assert [line["event"] for line in lines] == ["pipeline.exported"]
    assert (lines[0]["rows"], lines[0]["user_id"]) == (250, "ann")


def test_a_caller_that_leaves_while_jobs_are_counted_ends_the_counting(api: Service) -> None:
    # Given: a table whose counting takes minutes
    nothing = ", ".join(f"NULL AS {name}" for name in COLUMNS[1:])
    api.run("DROP TABLE jobs")
    api.run(
        "CREATE VIEW jobs AS WITH RECURSIVE n(i) AS"
        " (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 1000000000)"
        f" SELECT i AS id, 'ann' AS user_id, {nothing} FROM n"
    )

    # When
    with pytest.raises(httpx.ReadTimeout):
        api.http.get(PATH, timeout=1)

    # Then
    until(api.idle)


def test_a_caller_that_reads_slowly_holds_neither_pages_nor_threads(
    api: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given: 20 MB, of which the caller takes a piece
    api.fill(20_000)
    whole, pages = api.table.page, 0

    def counted(*args: Any, **options: Any) -> Any:
        nonlocal pages
        pages += 1
        return whole(*args, **options)

    monkeypatch.setattr(api.table, "page", counted)

    # When
    with api.http.stream("GET", PATH) as answer:
        read = answer.iter_raw()
        taken = len(next(read))
        settled = -1
        while settled != pages:
            settled = pages
            time.sleep(0.5)

        # Then: what was read ahead is what the sockets' buffers hold
        assert 0 < pages < 150
        assert api.app.state.lanes.threads.borrowed_tokens == 0
        taken += sum(len(piece) for piece in read)
    assert pages == 200
    assert taken > 6_000_000


def test_a_caller_that_takes_nothing_for_long_is_cut_off(
    api: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    monkeypatch.setattr(api.engine.settings, "reader_timeout", timedelta(seconds=0.3))
    api.fill(30_000)

    # When
    with captured_logs() as lines, api.http.stream("GET", PATH) as answer:
        read = answer.iter_raw()
        next(read)
        until(api.idle)
        # Then
        with pytest.raises(httpx.RemoteProtocolError):
            list(read)
    assert "stream.stalled" in [line["event"] for line in lines]


def test_more_streams_than_a_process_sends_at_once_are_asked_to_come_again(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    monkeypatch.setattr(streams, "MAX_STREAMS", 1)
    api = make()
    whole, go_on = api.table.page, threading.Event()

    def late(*args: Any, **options: Any) -> Any:
        assert go_on.wait(20)
        return whole(*args, **options)

    monkeypatch.setattr(api.table, "page", late)

    # When
    with api.http.stream("GET", PATH) as first:
        busy = api.http.get(PATH)
        go_on.set()
        first.read()
    until(api.idle)
    free = api.http.get(PATH)

    # Then
    assert (busy.status_code, flat(busy)["code"]) == (503, "SERVICE_UNAVAILABLE")
    assert int(busy.headers["Retry-After"]) > 0
    assert free.status_code == 200


@pytest.mark.parametrize("own", [None, 1])
def test_one_key_gets_a_part_of_the_streams_of_a_process(
    make: Make, monkeypatch: pytest.MonkeyPatch, own: int | None
) -> None:
    # Given: streams that are not read to their end, of a key with or without a limit of its own
    api = make()
    if own is not None:
        (key,) = (one for one in api.keys.list() if one.user_id == "ann")
        api.keys.set(key.id, limits={limits.KEY_STREAMS.name: own})
    whole, go_on = api.table.page, threading.Event()

    def late(*args: Any, **options: Any) -> Any:
        assert go_on.wait(20)
        return whole(*args, **options)

    monkeypatch.setattr(api.table, "page", late)

    # When
    with ExitStack() as opened:
        for _ in range(own or limits.KEY_STREAMS.default):
            opened.enter_context(api.http.stream("GET", PATH))
        busy = api.http.get(PATH)
        go_on.set()
    until(api.idle)
    free = api.http.get(PATH)

    # Then
    assert limits.KEY_STREAMS.default < limits.STREAMS.default
    assert (busy.status_code, flat(busy)["code"]) == (429, "TOO_MANY_STREAMS")
    assert int(busy.headers["Retry-After"]) > 0
    assert free.status_code == 200
