"""Polls of one export on the native contract: its state, its file and what happened to it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated

import msgspec
from anyio import to_thread
from fastapi import Query, Request
from starlette.responses import RedirectResponse, Response

from exporter.api import auth, conditions, deeds, errors, headers, refusal, responses, turns
from exporter.api.state import position_call, run, service_of
from exporter.api.surface import Answer, Operation
from exporter.api.surfaces.native import views
from exporter.api.surfaces.native.views import Export
from exporter.api.waiting import until_end
from exporter.contracts.timestamps import Rfc3339
from exporter.core import exports, limits
from exporter.core.exports import Phase

MAX_WAIT_SECONDS = 30
"""Longest wait of a poll; most proxies close a connection that is silent for a minute."""

Wait = Annotated[
    int,
    Query(
        ge=0,
        description="Seconds to wait for the end of the export before the response is sent;"
        f" values over {MAX_WAIT_SECONDS} count as {MAX_WAIT_SECONDS}.",
    ),
]


async def show(request: Request, export_id: str, wait: Wait = 0) -> Response:
    """Returns an export of the caller, whichever contract it was created on.

    A key with the scope `operator` gets the exports of all users, those of others without the
    download URL. With `If-None-Match`, an export that has not changed is answered with 304; the
    ETag of a finished export changes before the latest download URL expires.
    """
    export = await responses.find_export(request, export_id, by_operator=True)
    if wait and not export.terminal and await end(request, export_id, wait):
        export = await responses.find_export(request, export_id, by_operator=True)
    return await reply(request, export)


async def end(request: Request, export_id: str, seconds: int) -> bool:
    """Waits for the end of the export, at most so many seconds and MAX_WAIT_SECONDS.

    Returns False, at once, if the key waits for too many exports, and if the client has left.
    Clients poll again after an ordinary answer, so one too many waits is no error.
    """
    with turns.turns_of(request).hold(request, limits.WAITING_POLLS) as may_wait:
        return may_wait and await until_end(request, export_id, min(seconds, MAX_WAIT_SECONDS))


async def reply(
    request: Request, export: exports.Export, added: Mapping[str, str] | None = None
) -> Response:
    """Returns the answer to a poll: 200 with the export, or 304 if the caller knows it."""
    service, caller = service_of(request), auth.caller(request)
    now = service.clock.now()
    position = None
    if export.phase is Phase.READY and not export.terminal:
        position = await run(request, position_call(request, export.id))
    if service.speeds.needs_speed(export):
        await to_thread.run_sync(service.speeds.read_speed, export.spec.source)
    tag = _tag(export, position, now, service.settings.link_ttl.total_seconds())
    given = {
        "ETag": tag,
        **responses.retry_after_header(export, now),
        **(added or {}),
    }
    if conditions.is_known(request, tag):
        return Response(status_code=304, headers={"Cache-Control": "no-store", **given})
    is_own = export.user_id == caller.user_id
    shown = views.view(service, export, with_link=caller.may_read and is_own)
    shown.queue_position = position
    return responses.reply(shown, 200, given)


def _tag(export: exports.Export, position: int | None, now: datetime, link_seconds: float) -> str:
    """Returns the ETag of an export: equal for two answers that say the same of it.

    It is weak, since each answer has a new URL. A caller who gets 304 keeps an older URL, so the
    ETag changes twice in the life of a URL.
    """
    has_file = export.file_expires_at is not None and now < export.file_expires_at
    period = int(now.timestamp() // (link_seconds / 2)) if has_file else 0
    return f'W/"{views.revision(export)}.{"" if position is None else position}.{period}"'


def file(request: Request, export_id: str) -> Response:
    """Redirects to the file of a finished export, by a newly signed URL.

    A lasting address of the file: `curl -L` with the key downloads it. The activity of the export
    names the key that asked.
    """
    caller, service = deeds.reader(request, limits.LIST_RATE), service_of(request)
    export = service.find(auth.owner(caller), export_id)
    if export is None:
        raise errors.missing(export_id)
    link = service.link(export)
    if link is None:
        raise refusal.Refusal(409, "no_file", _why_no_file(export))
    service.store.note(export_id, "linked", caller.id)
    return RedirectResponse(link[0], 302, {"Cache-Control": "private, no-store"})


def _why_no_file(export: exports.Export) -> str:
    if export.result is None:
        return f"the export is {export.state}; only a finished export has a file"
    return (
        "the file was deleted at the end of its retention; `retry` does not apply: create it anew"
    )


class Entry(msgspec.Struct):
    """Something that happened to an export."""

    at: Rfc3339
    what: Annotated[
        str,
        msgspec.Meta(
            description="queued, started, slice, takeover, waiting, published, linked, previewed,"
            " downloaded, canceled, failed or deleted; later versions may add others."
        ),
    ]
    by: Annotated[
        str, msgspec.Meta(description="Id of the API key or of the worker; empty if unknown.")
    ]
    detail: str
    until: Annotated[
        Rfc3339 | None, msgspec.Meta(description="Time at which a wait ends; null for all others.")
    ] = None


class Activity(msgspec.Struct):
    """What happened to an export, oldest first: at most 50 entries, the first and the latest."""

    activity: list[Entry]


def activity(request: Request, export_id: str) -> Response:
    """Returns what happened to an export, oldest first, with who did it."""
    caller, service = deeds.reader(request, limits.LIST_RATE), service_of(request)
    export = service.find(auth.owner(caller), export_id)
    if export is None:
        raise errors.missing(export_id)
    entries = [
        Entry(
            responses.zulu(one.at), one.what, one.by, one.detail, responses.zulu_or_none(one.until)
        )
        for one in service.activity(export)
    ]
    return responses.reply(Activity(entries))


OPERATIONS = (
    Operation(
        "GET /v1/exports/{export_id}",
        show,
        "getExport",
        "Get an export",
        {
            200: Answer(
                "The export; Retry-After until it has ended.",
                Export,
                views.EXAMPLE,
                (headers.RETRY_AFTER, headers.ETAG),
            ),
            304: Answer(
                "The export has not changed since the answer with the ETag of If-None-Match.",
                headers=(headers.RETRY_AFTER, headers.ETAG),
            ),
        },
        (404, 422),
        parameters=(conditions.PARAMETER,),
        is_frequent=True,
    ),
    Operation(
        "GET /v1/exports/{export_id}/file",
        file,
        "getExportFile",
        "Download the file of an export",
        {302: Answer("A redirect to the file.", headers=(headers.LOCATION,))},
        (404, 409, 429),
        codes={409: "no_file"},
    ),
    Operation(
        "GET /v1/exports/{export_id}/activity",
        activity,
        "getExportActivity",
        "Get the activity of an export",
        {
            200: Answer(
                "What happened to the export.",
                Activity,
                {
                    "activity": [
                        {
                            "at": "2026-03-02T09:15:04.201933Z",
                            "what": "queued",
                            "by": "5d1f0c2a9e41",
                            "detail": "",
                            "until": None,
                        }
                    ]
                },
            )
        },
        (404, 429),
    ),
)
