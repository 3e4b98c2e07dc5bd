"""Lists and downloads the files of data requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from fastapi import Query, Request
from starlette.responses import RedirectResponse, Response

from exporter.api import auth, edge, headers, responses
from exporter.api.files import downloads
from exporter.api.files.downloads import ServedFile
from exporter.api.refusal import Refusal
from exporter.api.state import service_of
from exporter.api.surface import Answer, Operation
from exporter.api.surfaces.coresignal.versions import V1, V2, Version, aliases, too_many_matches
from exporter.core.exports import Export, State
from exporter.formats import registry


class Pending(msgspec.Struct):
    """A data request whose files are not ready yet."""

    message: str
    data_request_files: list[str]


class Files(msgspec.Struct, omit_defaults=True):
    """The files of a data request: gzipped JSON Lines with up to 10,000 records each."""

    data_request_files: list[str]
    unknown_ids_file: Annotated[
        str | None,
        msgspec.Meta(
            description="A gzipped text file with the ids that the source does not have, one per"
            " line. Absent if the source has all ids."
        ),
    ] = None


PENDING = Pending("Data request is still being processed", [])
_ID = "0b8c2c4e-6a57-4a2b-9a50-0e6a3a2f6b11"
_FILES = {"data_request_files": [f"part-00000-{_ID}-h000.json.gz"]}


def files(request: Request, request_id: str) -> Response:
    """Lists the files of a data request when they are ready; the status is 202 until then.

    A data request that will never have files gets 422 with the reason, because clients try again
    after a 5xx, and because the vendor answers 422 when nothing can be collected. A data request
    that was canceled, or whose files have expired after 30 days, gets 404.
    """
    service = service_of(request)
    export = _find_readable(request, request_id)
    if not export.terminal:
        waits = responses.retry_after_header(export, service.clock.now())
        return responses.reply(PENDING, 202, waits)
    found, unknown = _served_files(export)
    if not found:
        detail = "Request did not find any matching IDs."
        if unknown is not None:
            detail += f" The ids that you sent are in the file {unknown.name}."
        raise Refusal(422, "nothing_matched", detail)
    names = [one.name for one in found]
    return responses.reply(Files(names, unknown.name if unknown else None))


Redirect = Annotated[
    bool,
    Query(description="Redirect to the file store, if the data request has only this file."),
]


def file(
    request: Request,
    request_id: str,
    file_name: str,
    redirect: Redirect = False,
) -> Response:
    """Downloads a file as it is stored (gzip is not unpacked), or a byte range of the file."""
    service = service_of(request)
    export = _find_readable(request, request_id)
    found, unknown = _served_files(export) if export.terminal else ([], None)
    all_files = [*found, unknown] if unknown else found
    for one in all_files:
        if one.name == file_name:
            link = service.link(export) if redirect and len(all_files) == 1 else None
            caller = auth.caller(request)
            if link is not None:
                service.store.note(export.id, "linked", caller.id, file_name)
                headers = {"Cache-Control": "private, no-store"}
                return RedirectResponse(link[0], 302, headers)
            answer = downloads.serve(request, service.storage, one)
            if answer.status_code in (200, 206) and not edge.is_head(request):
                service.store.note(export.id, "downloaded", caller.id, file_name)
            return answer
    raise Refusal(
        404, "not_found", f"data request {export.id} has no file {file_name[:200]!r}: see …/files"
    )


def _find_readable(request: Request, request_id: str) -> Export:
    """Returns the caller's data request, which has files or may still get files.

    Raises Refusal 404 if the data request is unknown, canceled or expired, and 422 if it failed,
    matched too many postings, or its record is damaged.
    """
    caller, service = auth.reader(request), service_of(request)
    export = service.find(caller.user_id, request_id)
    if export is None:
        raise Refusal(404, "not_found", f"no data request of yours has the id {request_id[:100]!r}")
    if export.state is State.CANCELED:
        raise Refusal(404, "canceled", "The data request was canceled")
    if export.state is State.FAILED:
        raise Refusal(422, "failed", f"Data request failed: {export.error}")
    if export.state is State.FINISHED and not export.readable:
        raise Refusal(422, "failed", "Data request failed: its record is damaged, send it again")
    if export.result is not None:
        expires = export.file_expires_at
        if expires is None or expires <= service.clock.now():
            raise Refusal(404, "expired", "The files of the data request are no longer kept")
        most = V2.max_rows if export.spec.surface == V2.surface else None
        if most is not None and export.result.record_count > most:
            raise too_many_matches(most)
    return export


def _served_files(export: Export) -> tuple[list[ServedFile], ServedFile | None]:
    """Returns the files of a finished export, and the file of unknown ids (None: no such file).

    Unknown ids were requested, but the source does not have them. Exports of other contracts have a
    single file, in the format of their request. An export without rows has no files.
    """
    spec, result = export.spec, export.result
    assert result is not None, export.state
    suffix = registry.extension(spec.format, spec.compression)
    content_type = registry.media_type(spec.format, spec.compression)

    def served(name: str, start: int, size: int) -> ServedFile:
        # Published objects never change, so a byte range identifies content like a checksum.
        tag = f"{export.id}-{start}-{size}"
        return ServedFile(name, result.key, start, size, content_type, tag)

    ranges = [(volume.offset, volume.size) for volume in result.volumes]
    if result.record_count == 0:
        ranges = []
    elif not ranges:
        # The unknown ids follow the rows in the same object.
        lost = result.unknown_ids
        ranges = [(0, lost.offset if lost else result.file_size)]
    parts = [
        served(f"part-{n:05d}-{export.id}-h000.{suffix}", *place) for n, place in enumerate(ranges)
    ]
    lost = result.unknown_ids
    name = f"unknown-ids-{export.id}.txt{registry.COMPRESSIONS[spec.compression].suffix}"
    return parts, served(name, lost.offset, lost.size) if lost else None


def _header(name: str, text: str) -> Mapping[str, Any]:
    return {
        "name": name,
        "in": "header",
        "required": False,
        "schema": {"type": "string"},
        "description": text,
    }


_BYTES = {"schema": {"type": "string", "format": "binary"}}
# Data requests are gzipped; exports of other contracts have the format of their request.
_FILE = {
    "application/gzip": _BYTES,
    "application/x-ndjson": _BYTES,
    "text/csv": {"schema": {"type": "string"}},
}
_FILE_HEADERS = (headers.ETAG, headers.ACCEPT_RANGES, headers.CONTENT_DISPOSITION)


def _operations(version: Version, suffix: str) -> tuple[Operation, Operation]:
    path = f"{version.path}/{{request_id}}/files"
    listing = Operation(
        f"GET {path}",
        files,
        f"listFiles{suffix}",
        "List the files of a data request",
        {
            200: Answer("The names of the files.", Files, _FILES),
            202: Answer(
                "The files are not ready; poll again after Retry-After.",
                Pending,
                msgspec.to_builtins(PENDING),
                (headers.RETRY_AFTER,),
            ),
        },
        (404, 422),
        aliases=aliases(path),
        codes={422: "nothing_matched"},
    )
    download = Operation(
        f"GET {path}/{{file_name}}",
        file,
        f"downloadFile{suffix}",
        "Download a file of a data request",
        {
            200: Answer("The file.", headers=_FILE_HEADERS, content=_FILE),
            206: Answer(
                "A byte range of the file.",
                headers=(*_FILE_HEADERS, headers.CONTENT_RANGE),
                content=_FILE,
            ),
            302: Answer("A redirect to the file in the file store.", headers=(headers.LOCATION,)),
            304: Answer(
                "The caller already has the current file.",
                headers=(headers.ETAG, headers.ACCEPT_RANGES),
            ),
        },
        {404: (), 416: (headers.CONTENT_RANGE,), 422: ()},
        parameters=(
            _header("Range", "`bytes=0-99`: only these bytes are returned."),
            _header("If-Range", "An ETag: Range is ignored unless the file still has this ETag."),
            _header("If-None-Match", "An ETag: the status is 304 if the file still has this ETag."),
        ),
        aliases=aliases(f"{path}/{{file_name}}"),
        codes={422: "nothing_matched"},
    )
    return listing, download


OPERATIONS = (*_operations(V1, "V1"), *_operations(V2, ""))
