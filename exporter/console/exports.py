"""The pages of exports: the list, and one export."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import msgspec
from anyio import to_thread
from starlette.responses import RedirectResponse, Response

from exporter.api.state import service_of
from exporter.api.surfaces.native import exports, lists, views
from exporter.api.surfaces.webhooks import deliveries
from exporter.console import file_commands, search_form
from exporter.console.visits import HEADERS, Visit, route
from exporter.formats import registry

PAGE_SIZE = 50


TABS: Mapping[str, str] = {
    "": "All",
    "queued,processing": "Unfinished",
    "finished": "Finished",
    "failed": "Failed",
    "canceled": "Canceled",
}
"""The tabs of the list, by the states that they show."""
FILTERS = ("state", "name", "source", "format", "created_from", "order")
"""Fields of the list, which are in its URL, so that a view can be sent to a colleague."""


async def index(visit: Visit) -> Response:
    """Shows the exports that meet the filters, newest first, with counts by state."""
    given = {name: one for name in FILTERS if (one := visit.field(name))}
    cursor = visit.field("cursor") or None
    found = await visit.call(lists.index, limit=PAGE_SIZE, cursor=cursor, **given)
    if not found.is_success:
        return visit.failed(found)
    counts = found.body["counts"]
    tabs = [
        (
            text,
            _address(given, state=states),
            _count(states, counts),
            given.get("state", "") == states,
        )
        for states, text in TABS.items()
    ]
    following = found.body["next_cursor"]
    return visit.page(
        "exports.html",
        exports=found.body["exports"],
        following=_address(given, cursor=following) if following else "",
        tabs=tabs,
        exact=found.body["counts_are_exact"],
        given=given,
        sources=service_of(visit.request).sources.names(),
        formats=list(registry.FORMATS),
    )


def _address(given: Mapping[str, str], **change: str) -> str:
    """Returns the address of the list with other values of some fields."""
    fields = {name: one for name, one in {**given, **change}.items() if one}
    return f"/?{urlencode(fields)}" if fields else "/"


def _count(states: str, counts: Mapping[str, int]) -> int:
    return sum(count for state, count in counts.items() if not states or state in states.split(","))


async def show(visit: Visit) -> Response:
    """Shows an export with its proof, file, request and deliveries."""
    export_id = str(visit.request.path_params["export_id"])
    one = await find(visit, export_id)
    if one is None:
        return missing(visit)
    sent = await visit.call(deliveries.of_export, export_id)
    kept = {"query", "source", "format", "columns", "limit", "compression", "name", "metadata"}
    body = {name: value for name, value in one.items() if name in kept and value}
    if body.get("compression") == "none":
        del body["compression"]
    body.setdefault("query", {})
    command = search_form.curl(body, visit.public_url)
    listed = sent.body["deliveries"] if sent.is_success else []
    link = (one["result"] or {}).get("download_url")
    return visit.page(
        "export.html",
        one=one,
        deliveries=listed,
        body=body,
        command=command,
        files=file_commands.commands(one, link, visit.public_url) if link else {},
        secret=link,  # anyone who has the link can read the file
    )


async def download(visit: Visit) -> Response:
    """Leads to a newly signed link of the file."""
    one = await find(visit, str(visit.request.path_params["export_id"]))
    if one is None:
        return missing(visit)
    link = (one["result"] or {}).get("download_url")
    if link is None:
        text = "The export has no file to download: it has not finished, or its file was deleted."
        return visit.page("error.html", 409, title="No file", detail=text)
    return RedirectResponse(link, 303, HEADERS)


async def find(visit: Visit, export_id: str) -> dict[str, Any] | None:
    """Returns an export as /v1 shows it; None if the user of the session has no such export."""
    service, key = service_of(visit.request), visit.key
    export = await to_thread.run_sync(service.find, key.user_id, export_id)
    if export is None:
        return None
    shown: dict[str, Any] = msgspec.to_builtins(views.view(service, export, with_link=key.may_read))
    return shown


def missing(visit: Visit) -> Response:
    """Returns the page of an export that does not exist, or belongs to another user."""
    text = "No export of yours has this id. It may be deleted, or its retention is over."
    return visit.page("error.html", 404, title="No such export", detail=text)


async def act(visit: Visit) -> Response:
    """Cancels, retries or deletes an export."""
    export_id, act = str(visit.request.path_params["export_id"]), visit.field("act")
    if act not in _ACTS:
        return visit.page("error.html", 422, title="Unknown act", detail="Nothing was changed.")
    handler, notice = _ACTS[act]
    done = await visit.call(handler, export_id)
    if not done.is_success:
        return visit.failed(done)
    return visit.go("/" if act == "delete" else f"/exports/{done.body['id']}", notice)


_ACTS = {
    "cancel": (exports.cancel, "canceled"),
    "retry": (exports.retry, "retried"),
    "delete": (exports.delete, "deleted"),
}

ROUTES = (
    route("/", index),
    route("/exports/{export_id:uuid}", show),
    route("/exports/{export_id:uuid}/download", download),
    route("/exports/{export_id:uuid}", act, ["POST"]),
)
