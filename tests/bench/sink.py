"""An S3 that remembers sizes and forgets bytes: `python -m tests.bench.sink PORT`.

What a client of it costs is the client's own cost: no disk and no checksum stands behind it. It
knows what an export needs, with objects under /BUCKET/KEY, and trusts every signature and
checksum. What is read again is kept: objects up to 16 MiB, which a slice has in hand when its time
is over, and pieces that are too small for a part. Ranges of all else are read as zeros.
"""

from __future__ import annotations

import itertools
import re
import sys
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from tests.bench.serving import Answer, Request, ranged, serve, stretch

KEEP = 16 * 1024 * 1024
"""Bytes of the largest object that is kept: more than a part of ours and a page beside it."""
KEPT_PART = 5 * 1024 * 1024 - 1
"""Bytes of the largest part that is kept: of one that is larger, only a few bytes are read."""
DEFAULT_TYPES = {"CRC64NVME": "FULL_OBJECT"}
"""Of the checksum of a whole upload, by algorithm, where it is not COMPOSITE."""
_WHEN = "2026-01-01T00:00:00.000Z"


class Piece(NamedTuple):
    """A body, or what is remembered of it."""

    size: int
    etag: str
    body: bytes | None


class Missing(Exception):
    """There is no such object or upload; the text is S3's code."""


class Sink:
    """One bucket whatever its name; safe to use from many threads, as dictionaries are."""

    def __init__(self) -> None:
        self._objects: dict[str, Piece] = {}
        self._uploads: dict[str, tuple[str, dict[int, Piece]]] = {}
        self._number = itertools.count(1)

    def handle(self, request: Request) -> Answer:
        """What S3 would answer."""
        url = urlsplit(request.target)
        asked = {
            name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()
        }
        _, _, key = unquote(url.path).lstrip("/").partition("/")
        try:
            if key:
                return self._of_object(request, key, asked)
            return self._of_bucket(request, asked)
        except Missing as error:
            code = str(error)
            return Answer(_xml("Error", f"<Code>{code}</Code>"), "404 Not Found")

    def _of_bucket(self, request: Request, asked: dict[str, str]) -> Answer:
        prefix = asked.get("prefix", "")
        if "uploads" in asked:
            found = [
                f"<Upload><Key>{escape(key)}</Key><UploadId>{id_}</UploadId>"
                f"<Initiated>{_WHEN}</Initiated></Upload>"
                for id_, (key, _) in list(self._uploads.items())
                if key.startswith(prefix)
            ]
            inner = "<IsTruncated>false</IsTruncated>" + "".join(found)
            return Answer(_xml("ListMultipartUploadsResult", inner))
        if "location" in asked:
            return Answer(_xml("LocationConstraint", ""))
        if request.method != "GET":
            return Answer()
        # All at once, whatever was asked: nobody keeps more than a few here.
        found = [
            f"<Contents><Key>{escape(key)}</Key><Size>{piece.size}</Size>"
            f"<ETag>{piece.etag}</ETag><LastModified>{_WHEN}</LastModified></Contents>"
            for key, piece in sorted(self._objects.items())
            if key.startswith(prefix)
        ]
        inner = f"<IsTruncated>false</IsTruncated><KeyCount>{len(found)}</KeyCount>"
        return Answer(_xml("ListBucketResult", inner + "".join(found)))

    def _of_object(self, request: Request, key: str, asked: dict[str, str]) -> Answer:
        match request.method, "uploadId" in asked:
            case "PUT", True:
                return self._put_part(request, asked["uploadId"], int(asked["partNumber"]))
            case "POST", True:
                return self._complete(request, asked["uploadId"])
            case "DELETE", True:
                self._uploads.pop(asked["uploadId"], None)
                return Answer(status="204 No Content")
            case "PUT", False:
                piece = self._objects[key] = self._piece(request)
                return Answer(headers={"etag": piece.etag, **_checksums(request)})
            case "POST", False:
                id_ = f"upload-{next(self._number)}"
                self._uploads[id_] = (key, {})
                inner = f"<Key>{escape(key)}</Key><UploadId>{id_}</UploadId>"
                return Answer(
                    _xml("InitiateMultipartUploadResult", inner), headers=_announced(request)
                )
            case "DELETE", False:
                self._objects.pop(key, None)
                return Answer(status="204 No Content")
            case _:
                return _shown(self._object(key), request)

    def _put_part(self, request: Request, id_: str, number: int) -> Answer:
        _, parts = self._upload(id_)
        copied = request.headers.get("x-amz-copy-source")
        if copied is None:
            piece = parts[number] = self._piece(request)
            return Answer(headers={"etag": piece.etag, **_checksums(request)})
        _, _, source = unquote(copied).lstrip("/").partition("/")
        whole = self._object(source)
        found = re.fullmatch(
            r"bytes=(\d+)-(\d+)", request.headers.get("x-amz-copy-source-range", "")
        )
        wanted = slice(int(found[1]), int(found[2]) + 1) if found else slice(0, whole.size)
        body = None if whole.body is None else whole.body[wanted]
        piece = parts[number] = Piece(wanted.stop - wanted.start, self._etag(), body)
        inner = f"<ETag>{piece.etag}</ETag><LastModified>{_WHEN}</LastModified>"
        return Answer(_xml("CopyPartResult", inner))

    def _complete(self, request: Request, id_: str) -> Answer:
        key, parts = self._upload(id_)
        named = re.findall(rb"<PartNumber>(\d+)</PartNumber>", request.body or b"")
        chosen = [parts[int(number)] for number in named]
        size = sum(piece.size for piece in chosen)
        bodies = [piece.body for piece in chosen if piece.body is not None]
        kept = size <= KEEP and len(bodies) == len(chosen)
        piece = Piece(size, self._etag(), b"".join(bodies) if kept else None)
        self._objects[key] = piece
        del self._uploads[id_]
        inner = f"<Key>{escape(key)}</Key><ETag>{piece.etag}</ETag>"
        return Answer(_xml("CompleteMultipartUploadResult", inner))

    def _piece(self, request: Request) -> Piece:
        # Some clients wrap a body in chunks of their own, each with its signature or checksum.
        size, body = request.size, request.body
        if "x-amz-decoded-content-length" in request.headers:
            size = int(request.headers["x-amz-decoded-content-length"])
            body = None if body is None else _unwrapped(body)
        return Piece(size, self._etag(), body)

    def _etag(self) -> str:
        return f'"{next(self._number):032x}"'

    def _object(self, key: str) -> Piece:
        try:
            return self._objects[key]
        except KeyError:
            raise Missing("NoSuchKey") from None

    def _upload(self, id_: str) -> tuple[str, dict[int, Piece]]:
        try:
            return self._uploads[id_]
        except KeyError:
            raise Missing("NoSuchUpload") from None


def _shown(piece: Piece, request: Request) -> Answer:
    headers = {"etag": piece.etag, "last-modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
    if request.method == "HEAD":
        return Answer(headers=headers, length=piece.size)
    if piece.body is None and "range" in request.headers:
        # The bytes between two partitions, which end up in a part of the whole file.
        return stretch(bytes(piece.size), ranged(request, piece.size), headers)
    if piece.body is None:
        text = f"the {piece.size} bytes of this object were not kept"
        return Answer(text.encode(), "501 Not Implemented")
    return stretch(piece.body, ranged(request, piece.size), headers)


def _announced(request: Request) -> dict[str, str]:
    """As AWS does, repeats the checksum that an upload was announced with."""
    algorithm = request.headers.get("x-amz-checksum-algorithm")
    if algorithm is None:
        return {}
    usual = DEFAULT_TYPES.get(algorithm, "COMPOSITE")
    type_ = request.headers.get("x-amz-checksum-type", usual)
    return {"x-amz-checksum-algorithm": algorithm, "x-amz-checksum-type": type_}


def _checksums(request: Request) -> dict[str, str]:
    """The checksum of a body, which is believed."""
    headers = request.headers.items()
    return {name: value for name, value in headers if name.startswith("x-amz-checksum-")}


def _keeps(target: str, size: int) -> bool:
    return size <= (KEPT_PART if "partNumber=" in target else KEEP)


def _unwrapped(body: bytes) -> bytes:
    pieces, at = [], 0
    while size := int(body[at : body.index(b"\r\n", at)].partition(b";")[0], 16):
        at = body.index(b"\r\n", at) + 2
        pieces.append(body[at : at + size])
        at += size + 2
    return b"".join(pieces)


def _xml(name: str, inner: str) -> bytes:
    space = "http://s3.amazonaws.com/doc/2006-03-01/"
    return f'<?xml version="1.0"?><{name} xmlns="{space}">{inner}</{name}>'.encode()


if __name__ == "__main__":
    serve(int(sys.argv[1]), Sink().handle, keeps=_keeps)
