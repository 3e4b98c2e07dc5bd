"""The Coresignal contract: postings collected in bulk, by filters or by ids, as gzipped JSON Lines.

An export is called a "data request" here. The older and the current paths work side by side, each
also under the vendor's base path /cdapi; `data_requests.Version` has the differences.

The vendor publishes no endpoint that lists data requests, shows their state or cancels them. A data
request is an export, so the endpoints of other contracts do this under the same id. The headers
Idempotency-Key, X-Data-Request-Id and Range and the field `unknown_ids_file` are our additions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel
from starlette.responses import RedirectResponse, Response

from exporter.api import auth, errors, idempotency, responses, webhook_fields
from exporter.api.errors import Detail
from exporter.api.files import downloads
from exporter.api.files.downloads import ServedFile
from exporter.api.refusal import Refusal
from exporter.api.state import service_of
from exporter.api.surfaces.coresignal import data_requests
from exporter.api.surfaces.coresignal.data_requests import V1, V2, DataRequest
from exporter.core.exports import Export, State
from exporter.formats import registry
from exporter.formats import registry as formats


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
_CREATED = {"request_id": _ID}
_FILES = {"data_request_files": [f"part-00000-{_ID}-h000.json.gz"]}

EXAMPLES: Mapping[tuple[str, str, str], Any] = {
    ("/v1/professional_network/job/bulk_collect/filter", "post", "201"): _CREATED,
    ("/v1/professional_network/job/bulk_collect/id_file", "post", "201"): _CREATED,
    **{
        (f"/v2/data_requests/job_base/{way}", "post", "201"): _CREATED
        for way in ("filter", "id_file", "ids", "es_dsl")
    },
    **{
        (f"{version.path}/{{request_id}}/files", "get", status): answer
        for version in (V1, V2)
        for status, answer in (("200", _FILES), ("202", msgspec.to_builtins(PENDING)))
    },
}
"""Example responses by path, method and status."""


# -- files -------------------------------------------------------------------------------------


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
            if link is not None:
                headers = {"Cache-Control": "private, no-store"}
                return RedirectResponse(link[0], 302, headers)
            return downloads.serve(request, service.storage, one)
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
            raise data_requests.too_many_matches(most)
    return export


def _served_files(export: Export) -> tuple[list[ServedFile], ServedFile | None]:
    """Returns the files of a finished export, and the file of unknown ids (None: no such file).

    Unknown ids were requested, but the source does not have them. Exports of other contracts have a
    single file, in the format of their request. An export without rows has no files.
    """
    spec, result = export.spec, export.result
    assert result is not None, export.state
    encoder = formats.make(spec.format, spec.dialect, spec.columns)
    suffix = encoder.extension + registry.SUFFIXES[spec.compression]
    content_type = registry.CONTENT_TYPES.get(spec.compression, encoder.content_type)

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
    name = f"unknown-ids-{export.id}.txt{registry.SUFFIXES[spec.compression]}"
    return parts, served(name, lost.offset, lost.size) if lost else None


# -- routes ------------------------------------------------------------------------------------


def _response_doc(description: str, shape: type) -> dict[str, Any]:
    content = {"schema": {"$ref": f"#/components/schemas/{shape.__name__}"}}
    return {"description": description, "content": {"application/json": content}}


def _request_doc(media_type: str, schema: Any, example: Any) -> dict[str, Any]:
    return {
        "parameters": [idempotency.PARAMETER],
        "requestBody": {
            "required": True,
            "content": {media_type: {"schema": schema, "example": example}},
        },
    }


def _json_request_doc(model: type[BaseModel], example: Any) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return _request_doc("application/json", schema, example)


_FILE_SCHEMA = {
    "type": "object",
    "required": ["ids_file"],
    "additionalProperties": False,
    "properties": {
        "ids_file": {
            "type": "string",
            "format": "binary",
            "description": "One id per line, without a header line.",
        },
        "data_format": {"type": "string", "enum": ["json"]},
        "webhook_url": {"type": "string", "description": webhook_fields.WEBHOOK_URL_DESCRIPTION},
        "webhook_events": {
            "type": "string",
            "description": "Event names separated by commas; default: all but `export.progress`.",
        },
    },
}
_BODIES = {
    data_requests.by_filter: _json_request_doc(
        data_requests.FilterRequest,
        {"filters": {"title": "Data Engineer", "country": "Germany"}, "limit": 500},
    ),
    data_requests.by_dsl: _json_request_doc(
        data_requests.DslRequest, {"es_dsl_query": {"query": {"match": {"title": "engineer"}}}}
    ),
    data_requests.by_ids: _json_request_doc(
        data_requests.IdsRequest, {"ids": [91927485, 91927486]}
    ),
    data_requests.by_id_file: _request_doc(
        "multipart/form-data", _FILE_SCHEMA, {"ids_file": "91927485\n91927486\n"}
    ),
}
_BYTES = {"schema": {"type": "string", "format": "binary"}}
# Data requests are gzipped; exports of other contracts have the format of their request.
_FILE = {
    "application/gzip": _BYTES,
    "application/x-ndjson": _BYTES,
    "text/csv": {"schema": {"type": "string"}},
}
_FILE_HEADERS = {
    "parameters": [
        {
            "name": name,
            "in": "header",
            "required": False,
            "schema": {"type": "string"},
            "description": text,
        }
        for name, text in (
            ("Range", "`bytes=0-99`: only these bytes are returned."),
            ("If-Range", "An ETag: Range is ignored unless the file still has this ETag."),
            ("If-None-Match", "An ETag: the status is 304 if the file still has this ETag."),
        )
    ]
}


def _router() -> APIRouter:
    """Builds the routes of all paths.

    The OpenAPI document shows each operation once: without the base path /cdapi, and under
    `job_base` only, because `job_base` and `job_multi_source` are the same data here.
    """
    router = APIRouter(tags=["coresignal"])

    def post(path: str, handler: Any, summary: str, *, shown: bool) -> None:
        router.add_api_route(
            path,
            handler,
            methods=["POST"],
            summary=summary,
            status_code=201,
            response_model=None,
            include_in_schema=shown,
            openapi_extra=_BODIES[handler],
            responses={
                201: _response_doc(
                    "Accepted. Location is the path of its list of files.", DataRequest
                ),
                **errors.documented(Detail, 400, 402, 409, 413, 415, 422, 429, 502),
            },
        )

    for base in ("", "/cdapi"):
        shown = not base
        older = f"{base}/v1/professional_network/job/bulk_collect"
        post(
            f"{older}/filter",
            data_requests.by_filter,
            "Collect by filters (older path)",
            shown=shown,
        )
        post(
            f"{older}/id_file",
            data_requests.by_id_file,
            "Collect by a file of ids (older path)",
            shown=shown,
        )
        for data_set in ("job_base", "job_multi_source"):
            place = f"{base}/v2/data_requests/{data_set}"
            known = shown and data_set == "job_base"
            post(f"{place}/filter", data_requests.by_filter, "Collect by filters", shown=known)
            post(
                f"{place}/es_dsl",
                data_requests.by_dsl,
                "Collect by an Elasticsearch query",
                shown=known,
            )
            post(f"{place}/ids", data_requests.by_ids, "Collect by ids", shown=known)
            post(
                f"{place}/id_file",
                data_requests.by_id_file,
                "Collect by a file of ids",
                shown=known,
            )
        for version in (V1, V2):
            router.add_api_route(
                f"{base}{version.path}/{{request_id}}/files",
                files,
                methods=["GET"],
                summary="List the files of a data request",
                response_model=None,
                include_in_schema=shown,
                responses={
                    200: _response_doc("The names of the files.", Files),
                    202: _response_doc(
                        "The files are not ready; poll again after Retry-After.", Pending
                    ),
                    **errors.documented(Detail, 404, 422),
                },
            )
            router.add_api_route(
                f"{base}{version.path}/{{request_id}}/files/{{file_name}}",
                file,
                methods=["GET"],
                response_class=Response,
                summary="Download a file of a data request",
                response_model=None,
                include_in_schema=shown,
                openapi_extra=_FILE_HEADERS,
                responses={
                    200: {"description": "The file.", "content": _FILE},
                    206: {"description": "A byte range of the file.", "content": _FILE},
                    302: {"description": "A redirect to the file in the file store."},
                    304: {"description": "The caller already has the current file."},
                    **errors.documented(Detail, 404, 416, 422),
                },
            )
    return router


router = _router()
