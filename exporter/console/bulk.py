"""Acts on many exports at once: those that were ticked in the list, or all that match its filters.

A first form names the number of exports that are meant; only its confirmation changes anything.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlencode

from starlette.responses import Response

from exporter.api.surfaces.native import exports
from exporter.console import export_page, file_commands
from exporter.console import exports as list_page
from exporter.console.visits import Visit, route
from exporter.core import limits

MAX_EXPORTS = limits.BULK_EXPORTS.default


class Act(NamedTuple):
    """Something that can be done with many exports."""

    states: tuple[str, ...]
    """The states of the exports to which it applies; all others are left out."""
    handler: Callable[..., Any]
    notice: str


_ACTS: Mapping[str, Act] = {
    "cancel": Act(("queued", "processing"), exports.cancel, "canceled-many"),
    "retry": Act(("failed", "canceled"), exports.retry, "retried-many"),
}
_STATES = {**{name: act.states for name, act in _ACTS.items()}, "download": ("finished",)}


async def submit(visit: Visit) -> Response:
    """Shows which exports are meant, or does with them what was confirmed."""
    act, view = visit.field("act"), list_page.filters(parse_qs(visit.field("view")))
    if act not in _STATES:
        return visit.page("error.html", 422, title="Unknown act", detail="Nothing was changed.")
    if visit.field("confirmed") and act in _ACTS:
        return await _run(visit, _ACTS[act], view)
    if visit.field("all"):
        found, is_all = await _matching(visit, view, _STATES[act])
        left_out = 0
    else:
        ids = visit.form.get("id", ())
        picked = [await export_page.find(visit, one) for one in ids[:MAX_EXPORTS]]
        found = [one for one in picked if one is not None and one["state"] in _STATES[act]]
        left_out, is_all = len(picked) - len(found), len(ids) <= MAX_EXPORTS
    if act == "download":
        found = [one for one in found if export_page.has_file(visit, one)]
    links = [link for one in found if (link := (one["result"] or {}).get("download_url"))]
    return visit.page(
        "bulk.html",
        act=act,
        exports=found,
        left_out=left_out,
        is_all=is_all,
        most=MAX_EXPORTS,
        view=urlencode(view),
        once=secrets.token_urlsafe(16),
        command=_download(found, links),
        secret=links,
    )


async def _matching(
    visit: Visit, view: Mapping[str, str], states: Sequence[str]
) -> tuple[list[dict[str, Any]], bool]:
    """Returns the exports of a list in some states, and False if there are more of them."""
    shown = [one for one in view.get("state", "").split(",") if one]
    wanted = [one for one in states if not shown or one in shown]
    found: list[dict[str, Any]] = []
    cursor = None
    while wanted and len(found) < MAX_EXPORTS:
        given = {**view, "state": ",".join(wanted)}
        page = await list_page.read(visit, given, limit=100, cursor=cursor)
        if not page.is_success:
            break
        found += page.body["exports"]
        cursor = page.body["next_cursor"]
        if cursor is None:
            break
    return found[:MAX_EXPORTS], cursor is None and len(found) <= MAX_EXPORTS


async def _run(visit: Visit, act: Act, view: Mapping[str, str]) -> Response:
    ids, once = visit.form.get("id", ())[:MAX_EXPORTS], visit.field("once")
    done, reason = 0, ""
    for one in ids:
        mark = {"Idempotency-Key": f"{once}:{one}"} if once and act.handler is exports.retry else {}
        result = await visit.call(act.handler, one, headers=mark)
        if result.is_success:
            done += 1
            continue
        reason = reason or result.detail
        if result.status in (402, 429):
            break  # the others would be refused, too
    if reason:
        text = f"Done with {done:,} of {len(ids):,} exports. The first that was refused: {reason}"
        return visit.page("error.html", 409, title="Not all were changed", detail=text)
    address = "/" + (f"?{urlencode(view)}" if view else "")
    return visit.go(f"{address}{'&' if view else '?'}n={done}", act.notice)


def _download(found: Sequence[Mapping[str, Any]], links: Sequence[str]) -> str:
    """Returns the command that downloads all files; empty without links."""
    if not links:
        return ""
    names = [one["result"]["file_name"] for one in found if one["result"]["download_url"]]
    doubled = {name for name in names if names.count(name) > 1}
    return "\n".join(
        file_commands.fetch(f"{number}-{name}" if name in doubled else name, link)
        for number, (name, link) in enumerate(zip(names, links, strict=True), 1)
    )


ROUTES = (route("/exports/bulk", submit, ["POST"]),)
