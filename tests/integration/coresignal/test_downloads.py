"""A file on its way to the caller: its ranges, its head, and how it breaks off."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest

from exporter.api.surfaces.coresignal import creation, files
from exporter.core.exports import Export
from exporter.errors import StorageUnavailable
from tests.integration.api_server import Service
from tests.integration.coresignal.desk import V1, check_flat, collected, create, holding


@pytest.fixture
def whole(api: Service, monkeypatch: pytest.MonkeyPatch) -> tuple[str, bytes]:
    """The path of a file that begins and ends within its object, and its bytes."""
    monkeypatch.setattr(creation, "ROWS_PER_FILE", 200)
    holding(api, 450)
    place = collected(api, create(api, V1), "/v1/bulk_collect")
    name = api.http.get(place).json()["data_request_files"][1]
    return f"{place}/{name}", api.http.get(f"{place}/{name}").content


@pytest.mark.parametrize(
    ("asked", "begin", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=5-9", 5, 10),
        ("bytes=100-", 100, None),
        ("bytes=-7", -7, None),
        ("bytes=0-999999999", 0, None),
        ("bytes=-999999999", 0, None),
        ("Bytes=5-9", 5, 10),
    ],
)
def test_a_range_is_exactly_those_bytes(
    api: Service, whole: tuple[str, bytes], asked: str, begin: int, end: int | None
) -> None:
    # Given
    path, content = whole

    # When
    answer = api.http.get(path, headers={"Range": asked})

    # Then
    wanted = content[begin:end]
    start = content.index(wanted) if begin else 0
    assert answer.status_code == 206
    assert answer.content == wanted
    assert int(answer.headers["Content-Length"]) == len(wanted)
    stop = start + len(wanted) - 1
    assert answer.headers["Content-Range"] == f"bytes {start}-{stop}/{len(content)}"
    assert "Content-Encoding" not in answer.headers


@pytest.mark.parametrize(
    "asked", ["bytes=9-5", "bytes=0-1,5-9", "bytes=", "bytes=-", "lines=0-1", "bytes=a-b", "0-1"]
)
def test_a_range_that_is_not_understood_gets_the_whole_file(
    api: Service, whole: tuple[str, bytes], asked: str
) -> None:
    # Given
    path, content = whole

    # When
    answer = api.http.get(path, headers={"Range": asked})

    # Then
    assert answer.status_code == 200
    assert answer.content == content


@pytest.mark.parametrize("asked", ["bytes={size}-", "bytes=99999999999-", "bytes=-0"])
def test_a_range_beyond_the_end_is_refused_with_the_size(
    api: Service, whole: tuple[str, bytes], asked: str
) -> None:
    # Given
    path, content = whole

    # When
    answer = api.http.get(path, headers={"Range": asked.format(size=len(content))})

    # Then
    check_flat(answer, 416, str(len(content)))
    assert answer.headers["Content-Range"] == f"bytes */{len(content)}"


def test_a_download_that_broke_off_goes_on_where_it_stopped_if_the_file_is_the_same(
    api: Service, whole: tuple[str, bytes]
) -> None:
    # Given
    path, content = whole
    tag = api.http.head(path).headers["ETag"]
    sibling = path.replace("part-00001", "part-00000")

    # When
    rest = api.http.get(path, headers={"Range": "bytes=100-", "If-Range": tag})
    changed = api.http.get(path, headers={"Range": "bytes=100-", "If-Range": '"other"'})
    dated = api.http.get(
        path, headers={"Range": "bytes=100-", "If-Range": "Fri, 01 Jan 2027 00:00:00 GMT"}
    )

    # Then
    assert (rest.status_code, content[:100] + rest.content) == (206, content)
    assert (changed.status_code, changed.content) == (200, content)
    assert (dated.status_code, dated.content) == (200, content)
    assert api.http.head(sibling).headers["ETag"] != tag


def test_head_tells_all_of_a_file_but_its_bytes_and_a_known_file_is_not_sent_again(
    api: Service, whole: tuple[str, bytes]
) -> None:
    # Given
    path, content = whole

    # When
    head = api.http.head(path)
    known = api.http.get(path, headers={"If-None-Match": f'"x", W/{head.headers["ETag"]}'})
    unknown = api.http.get(path, headers={"If-None-Match": '"x"'})

    # Then
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["Content-Length"]) == len(content)
    assert head.headers["Content-Type"] == "application/gzip"
    assert (known.status_code, known.content) == (304, b"")
    assert known.headers["ETag"] == head.headers["ETag"]
    assert unknown.content == content


class Pieces:
    """A stream of pieces of the store that tells what becomes of it."""

    def __init__(self, count: int, fails: Exception | None = None) -> None:
        self.left = count
        self.closed = threading.Event()
        self._fails = fails

    def __iter__(self) -> Pieces:
        return self

    def __next__(self) -> bytes:
        if self.left == 0 and self._fails is not None:
            raise self._fails
        if self.left == 0:
            raise StopIteration
        self.left -= 1
        return b"x" * 65_536

    def close(self) -> None:
        self.closed.set()


def streaming(
    api: Service, monkeypatch: pytest.MonkeyPatch, pieces: Pieces, size: int | None = None
) -> str:
    """The path of a file that consists of these pieces."""
    place = collected(api, create(api))
    (name,) = api.http.get(place).json()["data_request_files"]
    real = files._served_files
    whole_size = pieces.left * 65_536 if size is None else size

    def longer(export: Export) -> Any:
        (stretch,), unknown = real(export)
        return [stretch._replace(size=whole_size)], unknown

    monkeypatch.setattr(files, "_served_files", longer)
    monkeypatch.setattr(api.storage, "stream", lambda key, start, end: pieces)
    return f"{place}/{name}"


@pytest.mark.parametrize(
    "fails", [StorageUnavailable("S3 went away"), None], ids=["error", "early-end"]
)
def test_what_breaks_off_in_the_middle_never_looks_whole(
    api: Service, monkeypatch: pytest.MonkeyPatch, fails: Exception | None
) -> None:
    # Given
    pieces = Pieces(3, fails)
    path = streaming(api, monkeypatch, pieces, size=5 * 65_536)

    # When
    with pytest.raises(httpx.RemoteProtocolError):
        api.http.get(path)

    # Then
    assert pieces.closed.wait(5)


def test_a_store_that_does_not_answer_is_told_before_the_first_byte(
    api: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    path = streaming(api, monkeypatch, Pieces(1))

    def away(key: str, start: int, end: int) -> Iterator[bytes]:
        raise StorageUnavailable("S3 does not answer")

    monkeypatch.setattr(api.storage, "stream", away)

    # When
    answer = api.http.get(path)

    # Then
    check_flat(answer, 503, "file store")
    assert "Retry-After" in answer.headers


def test_a_caller_who_leaves_gives_the_stores_connection_back(
    api: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    pieces = Pieces(10_000)
    path = streaming(api, monkeypatch, pieces)

    # When
    with api.http.stream("GET", path) as answer:
        next(answer.iter_raw())

    # Then
    assert pieces.closed.wait(5)
    assert pieces.left > 9_000


def test_a_caller_who_takes_nothing_is_cut_off_and_costs_no_memory_meanwhile(
    api: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    monkeypatch.setattr(api.engine.settings, "reader_timeout", timedelta(seconds=0.3))
    pieces = Pieces(10_000)
    path = streaming(api, monkeypatch, pieces)

    # When: nothing is read beyond the head of the answer
    with api.http.stream("GET", path):
        cut_off = pieces.closed.wait(10)

    # Then: what was read ahead is what sockets hold
    assert cut_off
    assert pieces.left > 9_000
