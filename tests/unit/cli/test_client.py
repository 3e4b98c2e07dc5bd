"""Watching an export from outside, and taking its file whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from exporter.cli import client
from exporter.cli.client import Client, ServiceError, count_rows, download
from tests.upstreams import Answer, Reset, reply, serving


def record(state: str, **more: Any) -> bytes:
    return reply(200, {"id": "e1", "state": state, **more})


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_PAUSE_SECONDS", 0.001)


@pytest.mark.external
def test_a_watcher_sees_every_record_up_to_the_last() -> None:
    # Given
    seen: list[str] = []
    answers = [record("queued"), record("processing"), record("finished")]
    with serving(*answers) as service, Client(service.url, " exp_1\n") as one:
        # When
        last = one.wait("e1", lambda found: seen.append(found["state"]))
    # Then
    assert last["state"] == "finished"
    assert seen == ["queued", "processing", "finished"]
    assert {asked.headers["authorization"] for asked in service.asked} == {"Bearer exp_1"}


@pytest.mark.external
def test_a_service_that_is_restarted_meanwhile_is_asked_again() -> None:
    # Given: it vanishes, its proxy says so, then its store is not there yet
    away: list[Answer] = [
        [Reset()],
        reply(502, "<html>Bad Gateway"),
        reply(503, {"title": "Starting"}),
    ]
    with (
        serving(record("processing"), *away, record("failed")) as service,
        Client(service.url, "exp_1") as one,
    ):
        # When
        last = one.wait("e1", lambda _: None)
    # Then
    assert last["state"] == "failed"
    assert len(service.asked) == 5


@pytest.mark.external
def test_a_silent_service_is_shown_as_the_reason_of_a_wait() -> None:
    # Given
    seen: list[dict[str, Any]] = []
    first = record("processing", phase="reading", progress=0.4)
    with (
        serving(first, reply(503, {"title": "Starting"}), record("finished")) as service,
        Client(service.url, "exp_1") as one,
    ):
        # When
        one.wait("e1", lambda found: seen.append(dict(found)))
    # Then
    assert [found.get("phase") for found in seen] == ["reading", "waiting", None]
    assert "503 Starting" in seen[1]["waiting_for"]
    assert seen[1]["progress"] == 0.4


@pytest.mark.external
@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_ends_the_watch_at_once(status: int) -> None:
    # Given
    with (
        serving(record("queued"), reply(status, {"title": "No"})) as service,
        Client(service.url, "exp_1") as one,
        pytest.raises(ServiceError, match=f"{status} No"),
    ):
        # When
        one.wait("e1", lambda _: None)
    # Then
    assert len(service.asked) == 2


@pytest.mark.external
def test_a_download_gets_its_name_when_all_of_it_is_there(tmp_path: Path) -> None:
    # Given
    file = tmp_path / "jobs.csv"
    counts: list[int] = []

    def pieces() -> Iterator[bytes]:
        yield reply(200, b"_id\r\n", length=8)
        assert not file.exists()
        yield b"1\r\n"

    with serving(lambda _: pieces()) as service:
        # When
        download(f"{service.url}/f", file, 8, counts.append)
    # Then
    assert file.read_bytes() == b"_id\r\n1\r\n"
    assert sum(counts) == 8
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.external
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (reply(403, "expired"), "the download link answered 403"),
        (reply(200, b"_id", length=8), "the download broke off: "),
        (reply(200, b"_id"), "3 bytes arrived, 8 were announced"),
        (reply(200, b"no gzip", content_encoding="gzip"), "the download broke off: "),
    ],
)
def test_a_download_that_is_not_whole_leaves_what_was_there_before(
    tmp_path: Path, answer: bytes, said: str
) -> None:
    # Given
    file = tmp_path / "jobs.csv"
    file.write_bytes(b"of yesterday")
    # When
    with serving(answer) as service, pytest.raises(ServiceError, match=said):
        download(f"{service.url}/f", file, 8, lambda _: None)
    # Then
    assert list(tmp_path.iterdir()) == [file]
    assert file.read_bytes() == b"of yesterday"


@pytest.mark.parametrize(
    ("format_", "content", "count"),
    [
        ("csv", b"", 0),
        ("csv", b"_id\r\n", 0),
        ("csv", b'_id,text\r\n1,"two\r\nlines, ""quoted"""\r\n2,\r\n', 2),
        ("csv", b"_id\r\n" + b'"' + b"x" * 200_000 + b'"\r\n', 1),
        ("json", b"", 0),
        ("json", b'{"a":"\xe2\x80\xa8"}\n{"a":1}\n', 2),
        ("json_envelope", b'{"exported_at":null,"jobs":[\n],"total":0}\n', 0),
        (
            "json_envelope",
            b'{"exported_at":null,"jobs":[\n{"a":["]"]},\n{"a":1}\n],"total":2}\n',
            2,
        ),
        ("json_envelope", b'{"exported_at":null,"total":1,"jobs":[\n{"a":1}\n]}\n', 1),
    ],
)
def test_rows_of_a_file_are_counted_as_a_reader_sees_them(
    tmp_path: Path, format_: str, content: bytes, count: int
) -> None:
    # Given
    file = tmp_path / "file"
    file.write_bytes(content)
    # When
    found = count_rows(file, format_)
    # Then
    assert found == count


def test_an_envelope_that_was_cut_off_is_not_counted(tmp_path: Path) -> None:
    # Given
    file = tmp_path / "file"
    file.write_bytes(b'{"exported_at":null,"jobs":[\n{"a":1},\n{"a":2}')
    # When / Then
    with pytest.raises(ServiceError, match="ends before its closing line"):
        count_rows(file, "json_envelope")


def test_a_file_in_a_format_of_a_later_version_is_not_counted(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="older than the service"):
        count_rows(tmp_path / "file", "parquet")


@pytest.mark.parametrize("key", ["", " \n", "exp_é", "exp_1\nexp_2"])
def test_what_can_be_no_key_is_refused_without_showing_it(key: str) -> None:
    # When
    with pytest.raises(ServiceError) as refused:
        Client("http://127.0.0.1:9", key)
    # Then
    assert "exp_" not in str(refused.value)


def test_what_can_be_no_address_is_refused() -> None:
    # When / Then
    with pytest.raises(ServiceError, match="'http://h:port' is not an address"):
        Client("http://h:port", "exp_1")
