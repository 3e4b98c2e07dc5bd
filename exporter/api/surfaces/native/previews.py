"""The first rows of an export on the native contract, also while it is still written."""

from __future__ import annotations

from fastapi import Request
from starlette.responses import Response

from exporter.api import auth, deeds, errors, headers
from exporter.api.refusal import Refusal
from exporter.api.state import service_of
from exporter.api.surface import Answer, Operation
from exporter.core import limits
from exporter.core.exports import Export, State
from exporter.service import previews


def preview(request: Request, export_id: str) -> Response:
    """Returns the first 100 rows of an export, at most 256 KB, also before its end.

    CSV with its header for the format `csv`, else JSON Lines; never compressed. The rows are there
    as soon as the first pages are safely stored, after 2 to 30 seconds, and as long as the file.
    Until the end they have the header `x-exporter-partial`: whether the file is complete, and
    begins with the same rows, is known only at its end.
    """
    caller, service = deeds.reader(request, limits.LIST_RATE), service_of(request)
    export = service.find(auth.owner(caller), export_id)
    if export is None:
        raise errors.missing(export_id)
    is_own = export.user_id == caller.user_id
    found = previews.first_rows(service, export, operator="" if is_own else caller.id)
    if found is None:
        raise Refusal(409, "no_rows", _why_no_rows(export))
    given = {"Cache-Control": "private, no-store"}
    if found.is_partial:
        given["X-Exporter-Partial"] = "true"
    return Response(found.data, 200, given, found.media_type)


def _why_no_rows(export: Export) -> str:
    if not export.terminal:
        return "the first rows are not stored yet: ask again later, at the latest at the end"
    if export.state is not State.FINISHED:
        return f"the export is {export.state}: its rows were deleted"
    return "the file was deleted at the end of its retention: create the export anew"


_TEXT = {"schema": {"type": "string"}}

OPERATIONS = (
    Operation(
        "GET /v1/exports/{export_id}/preview",
        preview,
        "previewExport",
        "Get the first rows of an export",
        {
            200: Answer(
                "The first rows.",
                headers=(headers.PARTIAL,),
                content={
                    "text/csv": {**_TEXT, "example": "_id,job_title\r\n65f1,Data Engineer\r\n"},
                    "application/x-ndjson": {
                        **_TEXT,
                        "example": '{"_id": "65f1", "job_title": "Data Engineer"}\n',
                    },
                },
            )
        },
        (404, 409, 429),
        codes={409: "no_rows"},
    ),
)
