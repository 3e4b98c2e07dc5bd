"""The page of one export, and what can be done with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from anyio import to_thread
from starlette.responses import RedirectResponse, Response

from exporter.api import auth, responses
from exporter.api.state import position_call, run, service_of
from exporter.api.surfaces.native import exports, polls, views
from exporter.api.surfaces.webhooks import deliveries
from exporter.console import file_commands, search_form
from exporter.console.visits import HEADERS, Visit, route
from exporter.core.exports import Export, Phase

_ASKED = (
    *("source", "query", "format", "columns", "limit", "compression", "priority"),
    *("csv_safe", "bom", "name", "metadata"),
)
"""Fields of an export that its request has, in the order of the form."""


async def show(visit: Visit) -> Response:
    """Shows an export with its proof, file, timeline, request and deliveries."""
    export_id = str(visit.request.path_params["export_id"])
    export = await _export(visit, export_id)
    if export is None:
        return missing(visit)
    service = service_of(visit.request)
    one = await _view(visit, export)
    sent = await visit.call(deliveries.of_export, export_id)
    entries = await to_thread.run_sync(service.activity, export)
    body = {name: one[name] for name in _ASKED if one[name]}
    if body["compression"] == "none":
        del body["compression"]
    if export.spec.source in service.sources:
        own = service.sources.columns(export.spec.source)
        if one["columns"] == list(own):
            del body["columns"]  # as if the request had none
    body.setdefault("query", {})
    link = (one["result"] or {}).get("download_url")
    return visit.page(
        "export.html",
        one=one,
        has_file=has_file(visit, one),
        has_rows=visit.may_read and (not export.terminal or has_file(visit, one)),
        timeline=[
            {**msgspec.structs.asdict(entry), "at": responses.zulu(entry.at)} for entry in entries
        ],
        deliveries=sent.body["deliveries"] if sent.is_success else [],
        body=body,
        command=search_form.curl(body, visit.public_url),
        files=file_commands.commands(one, link, visit.public_url) if link else {},
        secret=link,  # anyone who has the link can read the file
    )


async def download(visit: Visit) -> Response:
    """Leads to a newly signed link of the file; the activity names the key that asked."""
    found = await visit.call(polls.file, str(visit.request.path_params["export_id"]))
    if not found.is_success:
        return visit.failed(found)
    return RedirectResponse(found.headers["Location"], 303, HEADERS)


async def find(visit: Visit, export_id: str) -> dict[str, Any] | None:
    """Returns an export as /v1 shows it; None if the key of the session may not see it."""
    export = await _export(visit, export_id)
    return None if export is None else await _view(visit, export)


def has_file(visit: Visit, one: Mapping[str, Any]) -> bool:
    """True if the key of the session may download a file that is still kept."""
    expiry = (one["result"] or {}).get("expiry_time")
    now = responses.zulu(service_of(visit.request).clock.now())
    return visit.may_read and expiry is not None and expiry > now


async def _export(visit: Visit, export_id: str) -> Export | None:
    owner = auth.owner(visit.key)
    return await to_thread.run_sync(service_of(visit.request).find, owner, export_id)


async def _view(visit: Visit, export: Export) -> dict[str, Any]:
    service, key = service_of(visit.request), visit.key
    if service.speeds.needs_speed(export):
        await to_thread.run_sync(service.speeds.read_speed, export.spec.source)
    is_own = export.user_id == key.user_id
    shown = views.view(service, export, with_link=key.may_read and is_own)
    if export.phase is Phase.READY and not export.terminal:
        shown.queue_position = await run(visit.request, position_call(visit.request, export.id))
    found: dict[str, Any] = msgspec.to_builtins(shown)
    return found


async def unknown(visit: Visit) -> Response:
    """Answers every other address below /exports."""
    return missing(visit)


def missing(visit: Visit) -> Response:
    """Returns the page of an export that does not exist, or belongs to another user."""
    text = "No export of yours has this id. It may be deleted, or its retention is over."
    return visit.page("error.html", 404, title="No such export", detail=text)


async def act(visit: Visit) -> Response:
    """Cancels, retries or deletes an export, and leads back to where it was asked for."""
    export_id, act = str(visit.request.path_params["export_id"]), visit.field("act")
    if act not in _ACTS:
        return visit.page("error.html", 422, title="Unknown act", detail="Nothing was changed.")
    handler, notice = _ACTS[act]
    done = await visit.call(handler, export_id)
    if not done.is_success:
        return visit.failed(done)
    if visit.field("back") == "list":
        return visit.go("/" + (f"?{view}" if (view := visit.field("view")) else ""), notice)
    return visit.go("/" if act == "delete" else f"/exports/{done.body['id']}", notice)


_ACTS = {
    "cancel": (exports.cancel, "canceled"),
    "retry": (exports.retry, "retried"),
    "delete": (exports.delete, "deleted"),
}

ROUTES = (
    route("/exports/{export_id:uuid}", show),
    route("/exports/{export_id:uuid}/download", download),
    route("/exports/{export_id:uuid}", act, ["POST"]),
    route("/exports/{rest:path}", unknown),
)
