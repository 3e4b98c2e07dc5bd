"""Serves stored files through the API, whole or in byte ranges."""

from __future__ import annotations

import re
from functools import partial
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from exporter.api import conditions
from exporter.api.edge import is_head
from exporter.api.files.streams import Stream
from exporter.api.refusal import Refusal
from exporter.storage.base import FileHeaders, Storage

_RANGE = re.compile(r"bytes=(?:([0-9]{1,18})-([0-9]{0,18})|-([0-9]{1,18}))", re.IGNORECASE)


class ServedFile(NamedTuple):
    """A byte range of a stored object that callers download as a file of its own."""

    name: str
    key: str
    start: int
    size: int
    content_type: str
    tag: str
    """ETag without quotes: different for any two files, constant for one file."""


def serve(request: Request, storage: Storage, file: ServedFile) -> Response:
    """Returns the answer to a GET or HEAD of a file: 200, 206 for a range, 304 if unchanged.

    Raises Refusal 416 if the file has none of the bytes of the requested range. The answer has no
    Content-Encoding, so clients save a compressed file compressed. Only a single range is served.
    For several ranges or a malformed range the whole file is sent, which RFC 9110 allows. The whole
    file is also sent if `If-Range` does not match.
    """
    tag = f'"{file.tag}"'
    headers = {
        "ETag": tag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-transform",
    }
    if conditions.is_known(request, tag):
        return Response(status_code=304, headers=headers)
    wanted = None
    if not is_head(request) and request.headers.get("if-range", tag).strip() == tag:
        wanted = _range(request.headers.get("range", ""), file.size)
    status = 200
    if wanted is None:
        wanted = range(file.size)
    else:
        status = 206
        headers["Content-Range"] = f"bytes {wanted.start}-{wanted.stop - 1}/{file.size}"
    headers |= {
        "Content-Type": file.content_type,
        "Content-Disposition": FileHeaders(file.content_type, file.name).disposition,
        "Content-Length": str(len(wanted)),
    }
    if is_head(request):
        return Response(status_code=status, headers=headers)
    begin, end = file.start + wanted.start, file.start + wanted.stop
    return Stream(
        partial(storage.stream, file.key, begin, end),
        request.app.state.downloads,
        headers,
        status=status,
    )


def _range(header: str, size: int) -> range | None:
    """Returns the byte range that a Range header requests from a file of `size` bytes.

    Returns None if the header is empty or malformed, or requests several ranges. Raises Refusal 416
    if the file has none of the requested bytes.
    """
    found = _RANGE.fullmatch(header.replace(" ", ""))
    if found is None:
        return None
    first, last, length = found.groups()
    if length is not None:
        wanted = range(max(size - int(length), 0), size)
    else:
        stop = int(last) + 1 if last else size
        if stop <= int(first) and last:
            return None
        wanted = range(int(first), min(stop, size))
    if not wanted:
        raise Refusal(
            416,
            "range_not_satisfiable",
            f"the file has {size} bytes, and the range {header[:100]!r} contains none of them",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return wanted
