"""The list of exports: its tabs and filters, and the first export of a new user."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from starlette.responses import Response

from exporter.api.state import service_of
from exporter.api.surfaces.native import estimate, exports, lists, sources
from exporter.console import export_page, new_export
from exporter.console.operations import Result
from exporter.console.search_form import Form
from exporter.console.visits import Visit, route
from exporter.core.exports import Outcome
from exporter.formats import registry

PAGE_SIZE = 50
SAMPLE_ROWS = 1_000
"""Rows of the first export of a key that pays for rows, or of a source that is very large."""
MAX_WHOLE_ROWS = 100_000
"""Largest source whose first export has all rows."""

TABS: Mapping[str, str] = {
    "": "All",
    "queued": "Queued",
    "processing": "Running",
    "finished": "Finished",
    "failed": "Failed",
    "canceled": "Canceled",
}
"""The tabs of the list, by the states that they show."""
FILTERS = ("name", "source", "user", "format", "outcome", "created_from", "created_to", "order")
METADATA = "metadata"
"""Field of the form `key=value`."""


def filters(form: Form) -> dict[str, str]:
    """Returns the filters of a list, which are in its URL so that a view can be sent to others."""
    names = ("state", *FILTERS, METADATA)
    return {name: one for name in names if (one := (form.get(name) or [""])[0].strip())}


async def read(visit: Visit, given: Mapping[str, str], **options: Any) -> Result:
    """Returns a page of the list with these filters."""
    plain = {name: value for name, value in given.items() if name != METADATA}
    key, separator, value = given.get(METADATA, "").partition("=")
    pair = {f"{METADATA}[{key.strip()}]": value.strip()} if separator or key else {}
    return await visit.call(lists.index, query=pair, **plain, **options)


async def index(visit: Visit) -> Response:
    """Shows the exports that meet the filters, newest first, with counts by state."""
    given, cursor = filters(visit.form), visit.field("cursor") or None
    found = await read(visit, given, limit=PAGE_SIZE, cursor=cursor)
    if not found.is_success:
        return visit.failed(found)
    counts = found.body["counts"]
    state = given.get("state", "")
    tabs = [
        (text, _address(given, state=states), _count(states, counts), state == states)
        for states, text in TABS.items()
    ]
    following = found.body["next_cursor"]
    listed = found.body["exports"]
    return visit.page(
        "exports.html",
        exports=[{**one, "has_file": export_page.has_file(visit, one)} for one in listed],
        following=_address(given, cursor=following) if following else "",
        tabs=tabs,
        matching=_count(state, counts),
        exact=found.body["counts_are_exact"],
        given=given,
        view=urlencode(given),
        sources=service_of(visit.request).sources.names(),
        formats=list(registry.FORMATS),
        outcomes=list(Outcome),
    )


def _address(given: Mapping[str, str], **change: str) -> str:
    """Returns the address of the list with other values of some fields."""
    fields = {name: one for name, one in {**given, **change}.items() if one}
    return f"/?{urlencode(fields)}" if fields else "/"


def _count(states: str, counts: Mapping[str, int]) -> int:
    return sum(count for state, count in counts.items() if not states or state in states.split(","))


async def first(visit: Visit) -> Response:
    """Creates an export from the first source that has rows, and shows it."""
    reasons = []
    for name in new_export.allowed_sources(visit):
        counted = await visit.call(estimate.estimate, body={"source": name, "query": {}})
        rows = counted.body["records"] if counted.is_success else 0
        if rows is None:  # a source that does not count
            shown = await visit.call(sources.preview, name, body={"query": {}})
            rows = None if shown.is_success and shown.body["rows"] else 0
        if rows == 0:
            reasons.append(f"{name}: {counted.detail or 'it has no rows'}")
            continue
        body: dict[str, Any] = {
            "source": name,
            "query": {},
            "format": "csv",
            "name": "First export",
        }
        if rows is None or rows > MAX_WHOLE_ROWS or visit.key.plan.metered:
            body["limit"] = SAMPLE_ROWS
        made = await visit.call(exports.create, body=body)
        return visit.go(f"/exports/{made.body['id']}") if made.is_success else visit.failed(made)
    text = f"No source has rows now. {'; '.join(reasons)}"
    return visit.page("error.html", 409, title="Nothing to export", detail=text)


ROUTES = (
    route("/", index),
    route("/exports/first", first, ["POST"]),
)
