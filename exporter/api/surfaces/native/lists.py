"""The list of exports on the native contract, with its filters and counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import msgspec
from fastapi import Query, Request
from starlette.responses import Response

from exporter.api import auth, deeds, errors, headers, responses
from exporter.api.state import service_of
from exporter.api.surface import Answer, Operation
from exporter.api.surfaces.native import views
from exporter.contracts import timestamps
from exporter.core import limits
from exporter.core.exports import Outcome, State
from exporter.errors import FieldProblem, problem
from exporter.store.filters import Filters

METADATA = "metadata"
"""Query parameter of the form `metadata[key]=value`."""

States = Annotated[
    str | None,
    Query(description=f"States ({', '.join(State)}), with commas between them; default: all."),
]
Source = Annotated[str | None, Query(max_length=200, description="Name of a source.")]
Format = Annotated[str | None, Query(max_length=100, description="Name of a format, such as csv.")]
Moment = Annotated[str | None, Query(max_length=64, description="A day, or a time in RFC 3339.")]
Name = Annotated[
    str | None,
    Query(max_length=200, description="Beginnings of words of the name, in any order and case."),
]


OutcomeName = Annotated[Outcome | None, Query(description="Completeness of the file.")]
User = Annotated[
    str | None,
    Query(max_length=200, description="For operators: exports of this user; default: of all."),
]


def index(  # noqa: PLR0913 - one for each query parameter
    request: Request,
    limit: responses.Limit = 20,
    cursor: responses.Cursor = None,
    state: States = None,
    source: Source = None,
    format: Format = None,  # noqa: A002
    outcome: OutcomeName = None,
    created_from: Moment = None,
    created_to: Moment = None,
    name: Name = None,
    user: User = None,
    order: Annotated[
        Literal["newest", "oldest"], Query(description="Which exports come first.")
    ] = "newest",
) -> Response:
    """Lists the caller's exports of all contracts that meet the filters, with counts by state.

    A key with the scope `operator` lists those of all users, or of one `user`.
    `metadata[key]=value` finds exports with that pair. `created_to` itself is not included. A
    cursor belongs to the filters and the order of its first page.
    """
    caller, service = deeds.reader(request, limits.LIST_RATE), service_of(request)
    filters = filters_of(request, state, source, format, outcome, created_from, created_to, name)
    filters = msgspec.structs.replace(filters, oldest_first=order == "oldest")
    owner = auth.owner(caller, user)
    page = responses.records(service, owner, limit, cursor, filters)
    counts = service.store.count_states(owner, filters)
    entries = [
        views.view(service, export, with_link=export.user_id == caller.user_id)
        for export in page.exports
    ]
    for entry in entries:
        entry.query = responses.listed_query(entry.query or {})
    others = {
        name: value
        for name, value in request.query_params.items()
        if name not in ("limit", "cursor")
    }
    return responses.reply(
        views.ExportPage(entries, page.next_cursor, dict(counts.counts), counts.exact),
        headers=responses.next_link(service, "/v1/exports", limit, page.next_cursor, others),
    )


def filters_of(
    request: Request,
    state: str | None,
    source: str | None,
    format: str | None,  # noqa: A002
    outcome: Outcome | None,
    created_from: str | None,
    created_to: str | None,
    name: str | None,
) -> Filters:
    """Returns the filters of a list or stream. Raises Refusal 422 that names the wrong ones."""
    wrong: list[FieldProblem] = []
    filters = Filters(
        states=_states(state, wrong),
        source=source,
        format=format,
        outcome=outcome,
        created_from=_read(timestamps.parse, "created_from", created_from, wrong),
        created_to=_read(timestamps.parse, "created_to", created_to, wrong),
        metadata=metadata_of(request.query_params),
        text=name or "",
    )
    if wrong:
        raise errors.invalid(wrong)
    return filters


def metadata_of(query: Mapping[str, str]) -> dict[str, str]:
    """Returns the pairs of the parameters `metadata[key]=value`.

    >>> metadata_of({"metadata[team]": "ops", "limit": "3"})
    {'team': 'ops'}
    """
    begin = f"{METADATA}["
    return {name[len(begin) : -1]: value for name, value in query.items() if name.startswith(begin)}


def _states(text: str | None, wrong: list[FieldProblem]) -> tuple[State, ...]:
    found: list[State] = []
    for name in (text or "").split(",") if text else ():
        known = _read(State, "state", name.strip(), wrong)
        if known is not None:
            found.append(known)
    return tuple(sorted(set(found)))


def _read(
    parse: Callable[[str], Any], name: str, text: str | None, wrong: list[FieldProblem]
) -> Any:
    if text is None:
        return None
    try:
        return parse(text)
    except ValueError as error:
        known = f"{text[:50]!r} is no state: give {', '.join(State)}"
        wrong.append(problem(("query", name), known if parse is State else str(error)))
        return None


METADATA_PARAMETER: Mapping[str, Any] = {
    "name": METADATA,
    "in": "query",
    "required": False,
    "style": "deepObject",
    "explode": True,
    "description": "Pairs that the metadata has: `metadata[key]=value`.",
    "schema": {"type": "object", "additionalProperties": {"type": "string"}},
}

OPERATION = Operation(
    "GET /v1/exports",
    index,
    "listExports",
    "List exports",
    {
        200: Answer(
            "A page of exports; Link has the URL of the next page.",
            views.ExportPage,
            {
                "exports": [views.EXAMPLE],
                "next_cursor": None,
                "counts": {"queued": 0, "processing": 1, "finished": 7, "failed": 0, "canceled": 0},
                "counts_are_exact": True,
            },
            (headers.LINK,),
        )
    },
    (422, 429),
    parameters=(METADATA_PARAMETER,),
)
