"""Downloads and streamed rows: whole or not at all, whatever breaks on the way."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.client import Conflict, DownloadFailed, Exporter, ExportFailed, ServerFailed
from tests import fast
from tests.unit.client.conftest import KEY, Twin
from tests.upstreams import Answer, Asked, Reset, reply, serving

pytestmark = pytest.mark.external
Make = Callable[..., Twin]
CONTENT = b"_id,text\r\n" + b"".join(b'%d,"a ""b""\r\nc"\r\n' % n for n in range(500))
ROWS = [{"_id": str(n), "text": 'a "b"\r\nc'} for n in range(500)]


class Store:
    """A service with one finished export, and the object store of its file."""

    def __init__(self, content: bytes = CONTENT, **fields: Any) -> None:
        self.content = content
        self.fields = {"format": "csv", "compression": "none", **fields}
        self.links = 0
        self.breaks: Iterator[int] = iter(())
        """After how many bytes each of the next downloads breaks off."""
        self.refusals: Iterator[int] = iter(())
        """Statuses of the first answers to downloads."""
        self.ranged = True
        self.ranges: list[str] = []
        self.if_ranges: list[str] = []
        self.size = len(content)
        self.url = ""

    def answer(self, asked: Asked) -> Answer:
        if "/v1/" in asked.line:
            self.links += 1
            result = {
                "download_url": f"{self.url}/file?link={self.links}",
                "file_size": self.size,
                "record_count": 500,
                "file_name": "jobs.csv",
            }
            return reply(
                200, {"id": "0b8c2c4e-1", "state": "finished", "result": result} | self.fields
            )
        assert "authorization" not in asked.headers
        status = next(self.refusals, None)
        if status is not None:
            return reply(status, "no")
        wanted = asked.headers.get("range", "")
        self.ranges.append(wanted)
        self.if_ranges.append(asked.headers.get("if-range", ""))
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.ranged else 0
        rest = self.content[start:]
        head = reply(206 if start else 200, b"", length=len(rest), etag='"v1"')
        cut = next(self.breaks, None)
        return head + rest if cut is None else [head + rest[:cut], Reset()]


def serve(store: Store) -> Any:
    serving_store = serving(store.answer)

    class Served:
        def __enter__(self) -> str:
            store.url = serving_store.__enter__().url
            return store.url

        def __exit__(self, *error: Any) -> None:
            serving_store.__exit__(*error)

    return Served()


def test_a_download_gets_its_name_when_all_of_it_is_there(twin: Make, tmp_path: Path) -> None:
    # Given
    file, sizes = tmp_path / "jobs.csv", list[int]()
    with serve(Store()) as url:
        # When
        found = twin(url).download("0b8c2c4e-1", file, count=sizes.append)
    # Then
    assert found == file
    assert list(tmp_path.iterdir()) == [file]
    assert file.read_bytes() == CONTENT
    assert sizes[-1] == len(CONTENT)


@given(cuts=st.lists(st.integers(0, len(CONTENT)), max_size=5), ranged=st.booleans())
@settings(max_examples=fast.examples(25), deadline=None)
def test_a_download_that_breaks_off_anywhere_ends_with_the_file(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], ranged: bool
) -> None:
    # Given
    folder, store = tmp_path_factory.mktemp("broken"), Store()
    store.breaks, store.ranged = iter(cuts), ranged
    with serve(store) as url, Exporter(url, KEY) as client:
        # When
        client.download("0b8c2c4e-1", folder / "jobs.csv")
        read = b"".join(client.read("0b8c2c4e-1"))
    # Then
    assert (folder / "jobs.csv").read_bytes() == read == CONTENT
    assert len(list(folder.iterdir())) == 1


def test_a_later_call_goes_on_where_the_first_has_stopped(twin: Make, tmp_path: Path) -> None:
    # Given: a store that breaks off once, and is away after that
    store = Store()
    store.breaks, store.refusals = iter([1_000]), iter([])
    with serve(store) as url:
        store.refusals = _after(1, 503)
        with pytest.raises(DownloadFailed, match="answered 503: run it again to go on"):
            twin(url).download("0b8c2c4e-1", tmp_path / "jobs.csv")
        (part,) = tmp_path.iterdir()
        size = part.stat().st_size
        store.refusals = iter(())
        # When
        twin(url).download("0b8c2c4e-1", tmp_path / "jobs.csv")
    # Then
    assert part.name == "jobs.csv.0b8c2c4e.part"
    assert size > 0
    assert store.ranges[-1] == f"bytes={size}-"
    assert (tmp_path / "jobs.csv").read_bytes() == CONTENT
    assert not part.exists()


def _after(first: int, status: int) -> Iterator[Any]:
    yield from first * [None]
    while True:
        yield status


def test_within_a_call_the_bytes_must_be_of_the_same_file(twin: Make, tmp_path: Path) -> None:
    # Given
    store = Store()
    store.breaks = iter([10])
    with serve(store) as url:
        # When
        twin(url).download("0b8c2c4e-1", tmp_path / "jobs.csv")
    # Then
    assert store.if_ranges == ["", '"v1"'] or store.if_ranges == [""]


def test_a_link_that_is_over_is_signed_anew(twin: Make, tmp_path: Path) -> None:
    # Given
    store = Store()
    store.refusals = iter([403])
    with serve(store) as url:
        # When
        twin(url).download("0b8c2c4e-1", tmp_path / "jobs.csv")
    # Then
    assert store.links == 2
    assert (tmp_path / "jobs.csv").read_bytes() == CONTENT


@pytest.mark.parametrize("size", [len(CONTENT) - 1, len(CONTENT) + 1])
def test_a_file_of_another_size_is_not_kept(twin: Make, tmp_path: Path, size: int) -> None:
    # Given
    file, store = tmp_path / "jobs.csv", Store()
    file.write_bytes(b"of yesterday")
    store.size = size
    store.ranged = False
    # When
    with serve(store) as url, pytest.raises(DownloadFailed):
        twin(url).download("0b8c2c4e-1", file)
    # Then
    assert file.read_bytes() == b"of yesterday"


def test_an_export_without_a_file_says_why(twin: Make, tmp_path: Path) -> None:
    # Given
    failed = reply(200, {"id": "e1", "state": "failed", "error": "the source went away"})
    # When / Then
    with (
        serving(failed) as service,
        pytest.raises(ExportFailed, match="export e1 is failed: the source went away"),
    ):
        twin(service.url).download("e1", tmp_path / "jobs.csv")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_is_a_file(twin: Make, tmp_path: Path) -> None:
    # Given
    with serve(Store(b"", format="json")) as url:
        # When
        twin(url).download("0b8c2c4e-1", tmp_path / "jobs.jsonl")
        rows = twin(url).rows("0b8c2c4e-1")
    # Then
    assert (tmp_path / "jobs.jsonl").read_bytes() == b""
    assert rows == []


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("format_", ["csv", "json"])
@pytest.mark.parametrize("ranged", [True, False])
def test_rows_come_once_and_in_order_though_the_connection_breaks(
    twin: Make, format_: str, compression: str, ranged: bool
) -> None:
    # Given: a compressed file has several members, and its connection breaks three times
    content = CONTENT
    if format_ == "json":
        content = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    if compression == "gzip":
        content = gzip.compress(content[:700]) + gzip.compress(content[700:])
    store = Store(content, format=format_, compression=compression)
    store.breaks, store.ranged = iter([5, 40, len(content) // 3]), ranged
    with serve(store) as url:
        # When
        rows = twin(url).rows("0b8c2c4e-1")
    # Then
    assert rows == ROWS


def test_a_byte_order_mark_is_removed_from_the_file_and_from_no_row(twin: Make) -> None:
    # Given
    content = "\ufeffa,b\r\n\ufeff1,2\r\n".encode()
    with serve(Store(content)) as url:
        # When
        rows = twin(url).rows("0b8c2c4e-1")
    # Then
    assert rows == [{"a": "\ufeff1", "b": "2"}]


@pytest.mark.parametrize("fields", [{"format": "parquet"}, {"compression": "zstd"}])
def test_rows_of_a_file_that_cannot_be_streamed_are_refused(
    twin: Make, fields: dict[str, Any]
) -> None:
    # Given
    # When / Then
    with (
        serve(Store(**fields)) as url,
        pytest.raises(ValueError, match="cannot be streamed: download the file"),
    ):
        twin(url).rows("0b8c2c4e-1")


@pytest.mark.parametrize("is_partial", [True, False])
@pytest.mark.parametrize("format_", ["csv", "json"])
def test_the_first_rows_are_read_in_the_format_of_the_export(
    twin: Make, format_: str, is_partial: bool
) -> None:
    # Given: the service fails once
    content = CONTENT.decode()
    if format_ == "json":
        content = "".join(json.dumps(row) + "\n" for row in ROWS)
    kind = "text/csv; charset=utf-8" if format_ == "csv" else "application/x-ndjson"
    partial: dict[str, Any] = {"x_exporter_partial": "true"} if is_partial else {}
    with serving(reply(503), reply(200, content, content_type=kind, **partial)) as service:
        # When
        found = twin(service.url).first_rows("0b8c2c4e-1")
    # Then
    assert (found.rows, found.is_partial) == (ROWS, is_partial)
    assert [one.line.split()[1] for one in service.asked] == ["/v1/exports/0b8c2c4e-1/preview"] * 2


def test_first_rows_that_are_not_stored_are_a_conflict_and_a_web_page_is_no_rows(
    twin: Make,
) -> None:
    # Given
    early = {"code": "no_rows", "detail": "the first rows are not stored yet"}
    page = reply(200, "<html>", content_type="text/html")
    with serving(reply(409, early), page) as service:
        # When / Then
        with pytest.raises(Conflict, match="not stored yet"):
            twin(service.url).first_rows("0b8c2c4e-1")
        with pytest.raises(ServerFailed, match="text/html"):
            twin(service.url).first_rows("0b8c2c4e-1")
