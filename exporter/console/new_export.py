"""The page that makes an export: a form of the source's own filters, with count and preview."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from anyio import to_thread
from starlette.responses import Response

from exporter.api.state import credits_of, service_of
from exporter.api.surfaces.native import estimate, exports, sources
from exporter.console import export_page, search_form
from exporter.console.search_form import Form
from exporter.console.visits import HEADERS, Visit, route
from exporter.core.plans import NotInPlan
from exporter.formats import registry

MAX_PREVIEW_COLUMNS = 16
"""Columns of the preview of rows."""
PROMINENT = (
    *("job_titles", "title", "search", "keywords", "keyword_description", "geo_locations"),
    *("location", "country", "location_types", "location_type", "job_types", "employment_type"),
    *("experience", "industry", "company_names", "company_name", "date_posted", "days_ago"),
    *("created_at_gte", "modified_after", "status", "source", "from", "to"),
)
"""Filters that the form shows first, in this order; the others are folded."""


async def show(visit: Visit) -> Response:
    """Shows the form, of the first source or the one of `?source=`, or filled from `?from=`."""
    if not visit.may_write:
        text = "Your key may see exports, but make none. Sign in with one that has the scope write."
        return visit.page("error.html", 403, title="Not allowed", detail=text)
    before = visit.field("from")
    if not before:
        return await _page(visit, visit.form)
    found = await export_page.find(visit, before.lower())
    if found is None:
        return export_page.missing(visit)
    known = service_of(visit.request).sources
    if found["source"] not in known:
        return await _page(visit, search_form.fields(found, ()))
    filters = known.config(found["source"]).filters
    if found["columns"] == list(known.columns(found["source"])):
        found["columns"] = []  # as if none had been chosen
    return await _page(visit, search_form.fields(found, filters))


async def submit(visit: Visit) -> Response:
    """Counts and previews, or creates the export, by the button that was pressed.

    While the form is filled, its script asks for the equal command alone.
    """
    service, form = service_of(visit.request), visit.form
    name = visit.field("source")
    filters = service.sources.config(name).filters if name in service.sources else ()
    body = search_form.body(form, filters)
    if visit.field("do") == "command":
        body.setdefault("format", "csv")
        return Response(search_form.curl(body, visit.public_url), 200, HEADERS, "text/plain")
    if visit.field("do") == "create":
        mark = {"Idempotency-Key": visit.field("once")} if visit.field("once") else {}
        made = await visit.call(exports.create, body=body, headers=mark)
        if made.is_success:
            return visit.go(f"/exports/{made.body['id']}")
        return await _page(visit, form, wrong=made.problems, detail=made.detail, status=made.status)
    asked = {name: body[name] for name in ("source", "query", "limit") if name in body}
    counted = await visit.call(estimate.estimate, body=asked)
    if not counted.is_success:
        return await _page(
            visit, form, wrong=counted.problems, detail=counted.detail, status=counted.status
        )
    shown = await visit.call(sources.preview, name, body={"query": body["query"]})
    return await _page(
        visit,
        form,
        count=counted.body["records"],
        preview=shown.body if shown.is_success else None,
        detail=shown.detail,
    )


async def _page(
    visit: Visit,
    form: Form,
    *,
    wrong: Mapping[str, str] | None = None,
    status: int = 200,
    **context: Any,
) -> Response:
    service = service_of(visit.request)
    names = allowed_sources(visit)
    if not names:
        text = "The plan of your key includes no source of this service."
        return visit.page("error.html", 403, title="No source", detail=text)
    chosen = (form.get("source") or [names[0]])[0]
    if chosen not in names:
        chosen = names[0]
    found = await visit.call(sources.show, chosen)
    if not found.is_success:
        return visit.failed(found)
    source = found.body
    config = service.sources.config(chosen)
    first = sorted(
        (one for one in source["filters"] if one["name"] in PROMINENT),
        key=lambda one: PROMINENT.index(one["name"]),
    )
    more = [one for one in source["filters"] if one["name"] not in PROMINENT]
    body = search_form.body({**form, "source": [chosen]}, config.filters)
    body.setdefault("format", "csv")
    left = None
    if visit.key.plan.charges(source["feature"]):
        account = await to_thread.run_sync(credits_of(visit.request).balance, visit.key.id)
        left = account.left
    return visit.page(
        "new_export.html",
        status,
        **{"count": None, "preview": None, "detail": "", **context},
        sources=names,
        source=source,
        first=first,
        more=more,
        more_given=any(
            search_form.is_given(form, one["name"]) or f"query.{one['name']}" in (wrong or {})
            for one in more
        ),
        form=form,
        named="name" in exports.ExportRequest.model_fields,
        wrong=wrong or {},
        formats=list(registry.FORMATS),
        compressions=list(registry.COMPRESSIONS),
        columns=_preview_columns(
            [one for one in form.get("columns", ()) if one] or source["default_columns"],
            context.get("preview"),
        ),
        command=search_form.curl(body, visit.public_url),
        credits_left=left,
        once=secrets.token_urlsafe(16),
    )


def allowed_sources(visit: Visit) -> Sequence[str]:
    """Returns the names of the sources that the plan of the key includes."""
    return [name for name in service_of(visit.request).sources.names() if _is_allowed(visit, name)]


def _is_allowed(visit: Visit, name: str) -> bool:
    try:
        visit.key.plan.check(service_of(visit.request).sources.feature(name, {}))
    except NotInPlan:
        return False
    return True


def _preview_columns(columns: Sequence[str], preview: Mapping[str, Any] | None) -> Sequence[str]:
    """Returns the columns of the preview: the first of the file that some row has."""
    rows = preview["rows"] if preview else ()
    found = (name for name in columns if any(row.get(name) not in (None, "", []) for row in rows))
    return list(found)[:MAX_PREVIEW_COLUMNS]


ROUTES = (
    route("/exports/new", show),
    route("/exports/new", submit, ["POST"]),
)
