"""Downloads of finished files, which go on where they broke off."""

from __future__ import annotations

import csv
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import msgspec

from exporter.client import operations
from exporter.client.calls import FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS, Service, ask
from exporter.client.errors import ConnectionFailed, DownloadFailed, ExportFailed, ServerFailed
from exporter.client.models import Export, File, FirstRows
from exporter.client.steps import Emit, Request, Sleep, Steps, open_, read

MAX_TRIES_WITHOUT_PROGRESS = 6
"""Tries in a row that bring no byte, after which a download is given up."""
_LINK_IS_OVER = frozenset({401, 403, 404, 410})

Count = Callable[[int], None]
"""Is called with the number of bytes that have arrived so far, those of earlier tries included."""


class Sink(Protocol):
    """Takes the bytes of a file in order."""

    def write(self, data: bytes) -> Iterable[Any]:
        """Takes the next bytes, and returns the values to emit."""

    def restart(self) -> None:
        """Forgets all bytes, because the server sends the file from its beginning."""


def download(
    service: Service, export: Export | str, path: Path, count: Count | None
) -> Steps[Path]:
    """Downloads the file of a finished export to `path`, whole or not at all.

    The bytes are written to a `.part` file that is named after the export, and which gets the name
    `path` when all of them are there. A later call goes on at its end. Raises ExportFailed for an
    export without a file, DownloadFailed if the bytes cannot be had or are of another number than
    announced.
    """
    found = yield from _finished(service, export)
    file = _file_of(found)
    part = path.with_name(f"{path.name}.{found.id[:8]}.part")
    with _PartFile(part) as sink:
        start = sink.size
        if start > file.file_size:
            sink.restart()
            start = 0
        size = yield from _Transfer(service, found, start, sink, count).run()
    try:
        _check_size(found, size)
    except DownloadFailed:
        part.unlink()
        raise
    part.replace(path)
    return path


def read_bytes(service: Service, export: Export | str) -> Steps[None]:
    """Emits the bytes of a finished file, in order."""
    found = yield from _finished(service, export)
    size = yield from _Transfer(service, found, 0, _Bytes(), None).run()
    _check_size(found, size)


def rows(service: Service, export: Export | str) -> Steps[None]:
    """Emits each row of a finished file as a dict, without storing the file.

    Values of a CSV file are text. Raises ValueError for a format or a compression that cannot be
    read in pieces here.
    """
    found = yield from _finished(service, export)
    sink = _Rows(found.format, found.compression)
    size = yield from _Transfer(service, found, 0, sink, None).run()
    _check_size(found, size)
    for row in sink.end():
        yield Emit(row)


def first_rows(service: Service, export_id: str) -> Steps[FirstRows]:
    """Returns the first rows of an export, also while it runs."""
    accepted = {"accept": "text/csv, application/x-ndjson, application/json"}
    path = f"{operations.path_of(export_id)}/preview"
    reply = yield from ask(service, service.request("GET", path, headers=accepted))
    media_type = reply.headers.get("content-type", "").partition(";")[0]
    formats = {"text/csv": "csv", "application/x-ndjson": "json"}
    if media_type not in formats:
        reason = f"the answer is {media_type or 'of no type'}, not rows: is {service.url} right?"
        raise ServerFailed(reply.status, "no_rows", reason)
    sink = _Rows(formats[media_type], "none")
    found = [*sink.write(reply.body), *sink.end()]
    return FirstRows(rows=found, is_partial=reply.headers.get("x-exporter-partial") == "true")


def _finished(service: Service, export: Export | str) -> Steps[Export]:
    """Returns the export, asked now, so that its link is fresh."""
    export_id = export if isinstance(export, str) else export.id
    found = yield from operations.get(service, export_id)
    if not found.has_ended:
        raise DownloadFailed(f"export {found.id} is {found.state}: wait for its end first")
    if found.result is None:
        raise ExportFailed(found)
    return found


def _check_size(export: Export, size: int) -> None:
    announced = _file_of(export).file_size
    if size != announced:
        raise DownloadFailed(
            f"{size} bytes arrived, {announced} were announced: download the file again"
        )


def _file_of(export: Export) -> File:
    assert export.result is not None
    return export.result


class _Transfer:
    """Gets the bytes of a file in as many tries as that takes."""

    def __init__(
        self, service: Service, export: Export, start: int, sink: Sink, count: Count | None
    ) -> None:
        self._service, self._export = service, export
        self._sink, self._count = sink, count
        self._size, self._whole = start, _file_of(export).file_size
        self._tag = ""

    def run(self) -> Steps[int]:
        """Gives all bytes to the sink and returns the size; raises DownloadFailed if it cannot."""
        most, fruitless = self._size, 0
        while self._size < self._whole:
            cause: ConnectionFailed | None = None
            try:
                reason = yield from self._try()
            except ConnectionFailed as error:
                reason, cause = str(error), error
            if not reason:
                break
            fruitless = 0 if self._size > most else fruitless + 1
            most = max(self._size, most)
            if fruitless >= MAX_TRIES_WITHOUT_PROGRESS:
                raise DownloadFailed(f"{reason}: run it again to go on") from cause
            yield Sleep(min(FIRST_PAUSE_SECONDS * 2**fruitless, MAX_PAUSE_SECONDS))
        return self._size

    def _try(self) -> Steps[str]:
        """Reads on; returns why the end was not reached, or an empty text."""
        reply = yield from open_(self._request())
        if reply.status in _LINK_IS_OVER:
            self._export = yield from _finished(self._service, self._export)
            reply = yield from open_(self._request())
        if reply.status not in (200, 206):
            reason = f"the download link answered {reply.status}"
            if reply.status < 500 and reply.status not in (408, 429):
                raise DownloadFailed(reason)
            return reason
        self._tag = reply.headers.get("etag", "")
        if reply.status == 200 and self._size:
            self._sink.restart()
            self._size = 0
        while data := (yield from read()):
            self._size += len(data)
            for value in self._sink.write(data):
                yield Emit(value)
            if self._count:
                self._count(self._size)
        if self._size >= self._whole or "content-length" in reply.headers:
            return ""
        return f"the connection ended after {self._size} of {self._whole} bytes"

    def _request(self) -> Request:
        url = _file_of(self._export).download_url
        if url is None:
            raise DownloadFailed(
                f"export {self._export.id} has no download link: its file was deleted, or the key"
                " lacks the scope `read`"
            )
        return Request("GET", url, _range(self._size, self._tag))


def _range(start: int, tag: str) -> dict[str, str]:
    # A compressed transfer would have other bytes than the file.
    headers = {"accept-encoding": "identity"}
    if start:
        headers["range"] = f"bytes={start}-"
        # A weak tag is none for ranges; without one, the id of the export says that it is the file.
        if tag and not tag.startswith("W/"):
            headers["if-range"] = tag
    return headers


class _PartFile:
    """A file that is written from its end on."""

    def __init__(self, path: Path) -> None:
        self._out = path.open("ab")
        self.size = self._out.tell()

    def __enter__(self) -> _PartFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._out.close()

    def write(self, data: bytes) -> Iterable[Any]:
        self._out.write(data)
        return ()

    def restart(self) -> None:
        self._out.truncate(0)
        self.size = 0


class _Bytes:
    """Passes the bytes of a file on."""

    def __init__(self) -> None:
        self._size = self._given = 0

    def write(self, data: bytes) -> Iterable[Any]:
        # After a restart, what was given before comes again.
        fresh = data[max(self._given - self._size, 0) :]
        self._size += len(data)
        self._given = max(self._given, self._size)
        return (fresh,) if fresh else ()

    def restart(self) -> None:
        self._size = 0


class _Rows:
    """Cuts the bytes of a file into rows."""

    def __init__(self, format_: str, compression: str) -> None:
        if format_ not in ("csv", "json"):
            raise ValueError(f"rows of the format {format_} cannot be streamed: download the file")
        if compression not in ("none", "gzip"):
            raise ValueError(f"rows packed by {compression} cannot be streamed: download the file")
        self._is_csv, self._is_packed = format_ == "csv", compression == "gzip"
        self._emitted = self._given = 0
        """Rows read since the beginning of the file, and the most of them that were emitted."""
        self.restart()

    def restart(self) -> None:
        self._unpacker = zlib.decompressobj(wbits=31)
        self._rest = b""
        self._header: list[str] | None = None
        self._given = max(self._given, self._emitted)
        self._emitted = 0

    def write(self, data: bytes) -> Iterator[dict[str, Any]]:
        yield from self._new(self._cut(self._unpack(data)))

    def end(self) -> Iterator[dict[str, Any]]:
        """Returns the last row if no line break follows it."""
        rest, self._rest = self._rest, b""
        if rest.strip():
            yield from self._new(self._read(rest))

    def _new(self, found: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Returns those of the rows that were not emitted before a restart."""
        for row in found:
            self._emitted += 1
            if self._emitted > self._given:
                yield row

    def _unpack(self, data: bytes) -> bytes:
        if not self._is_packed:
            return data
        found = b""
        while data:
            # The file has a member for each piece that workers wrote.
            found += self._unpacker.decompress(data)
            data = self._unpacker.unused_data
            if data:
                self._unpacker = zlib.decompressobj(wbits=31)
        return found

    def _cut(self, data: bytes) -> Iterator[dict[str, Any]]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        whole = b""
        for line in lines:
            whole += line + b"\n"
            # A line break between quotes belongs to the row.
            if self._is_csv and whole.count(b'"') % 2:
                continue
            yield from self._read(whole)
            whole = b""
        self._rest = whole + self._rest

    def _read(self, line: bytes) -> Iterator[dict[str, Any]]:
        if not self._is_csv:
            yield msgspec.json.decode(line)
            return
        # Only the file begins with a byte order mark; elsewhere it is a part of the text.
        encoding = "utf-8-sig" if self._header is None else "utf-8"
        (cells,) = csv.reader([line.decode(encoding)], strict=True)
        if self._header is None:
            self._header = cells
        else:
            yield dict(zip(self._header, cells, strict=True))
