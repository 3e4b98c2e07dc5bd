"""Collects postings by filters, by a query, or by ids: the requests of the Coresignal contract."""

from __future__ import annotations

from typing import Any

import msgspec
from anyio import to_thread
from fastapi import Request
from starlette.responses import Response

from exporter.api import (
    auth,
    bodies,
    deeds,
    headers,
    idempotency,
    webhook_fields,
)
from exporter.api.bodies import TheBody, parse
from exporter.api.files import uploads
from exporter.api.refusal import Refusal
from exporter.api.surface import Answer, Body, Header, Operation
from exporter.api.surfaces.coresignal import creation
from exporter.api.surfaces.coresignal.request_bodies import (
    DslRequest,
    FilterRequest,
    IdsRequest,
    Options,
    parse_form,
    parse_form_fields,
    parse_id_form,
    validate,
)
from exporter.api.surfaces.coresignal.versions import (
    aliases,
    version_of,
)
from exporter.contracts.coresignal import JobFilters
from exporter.core import limits

MAX_UPLOAD_BYTES = limits.ID_LIST_BYTES.default
"""Maximum size of an uploaded list of ids, enough for a million ids."""
MAX_CONCURRENT_ID_LISTS = 2
"""Most id lists that one process turns into exports at once; a long list needs 200 MB for that."""
MAX_DSL_CHARS = 15_000
"""Maximum length of an Elasticsearch query, as the vendor documents."""
MAX_FORM_FIELD_BYTES = 4_000
"""Maximum size of a text field in an uploaded form."""


def by_filter(request: Request, body: TheBody) -> Response:
    """Collects all postings that match the filters.

    On the current paths a request may match up to 10,000 postings. If more match, the request for
    the list of files is answered with 422, as the vendor documents; with a metered key, this
    request itself is answered with 422. The older paths have no maximum and split the postings into
    several files.
    """
    caller = deeds.writer(request, limits.CREATE_RATE)
    asked = parse(
        request,
        body,
        FilterRequest,
        check=lambda fields: creation.find_problems(request, caller, fields),
    )
    return creation.create_from_search(request, caller, asked, asked.filters)


def by_dsl(request: Request, body: TheBody) -> Response:
    """Collects all postings that match an Elasticsearch query, if the source supports that."""
    caller = deeds.writer(request, limits.CREATE_RATE)
    asked = parse(
        request,
        body,
        DslRequest,
        check=lambda fields: creation.find_problems(request, caller, fields),
    )
    given = [query for query in (asked.es_dsl_query, asked.query) if query is not None]
    if len(given) != 1:
        raise Refusal(422, "invalid_request", "give either es_dsl_query or query")
    query = {"query": asked.query} if asked.query is not None else given[0]
    if len(msgspec.json.encode(query).decode()) > MAX_DSL_CHARS:
        raise Refusal(422, "invalid_request", f"the query is over {MAX_DSL_CHARS} characters")
    return creation.create_from_search(request, caller, asked, {"es_dsl": query})


async def by_ids(request: Request) -> Response:
    """Collects the postings with the given ids, sent as JSON or as the form field `ids`."""
    await auth.identify(request)
    caller = await to_thread.run_sync(deeds.writer, request, limits.CREATE_RATE)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    sinks = {name: uploads.Text(name, bodies.MAX_BODY_BYTES) for name in IdsRequest.model_fields}
    body = b""
    if kind == "multipart/form-data":
        bodies.check_encoding(request)
        whole = request.headers["content-type"]
        chunks = request.stream()
        await uploads.read(whole, chunks, sinks, max_bytes=bodies.MAX_BODY_BYTES, repeatable="ids")
    else:
        body = await bodies.read(request)

    def create() -> Response:
        if kind == "multipart/form-data":
            asked = parse_id_form({name: sink.value for name, sink in sinks.items()})
        elif kind == "application/x-www-form-urlencoded":
            asked = parse_id_form(parse_form(body))
        else:
            asked = parse(
                request,
                body,
                IdsRequest,
                max_values=bodies.MAX_BODY_BYTES,
                check=lambda fields: creation.find_problems(request, caller, fields),
            )
        ids = uploads.check_ids(asked.ids, version_of(request).max_ids)
        return creation.create_from_ids(request, caller, asked, asked.limit, ids)

    return await to_thread.run_sync(create)


async def by_id_file(request: Request) -> Response:
    """Collects the postings with the ids in a CSV or text file, one id per line, in that order.

    The maximum is 10,000 ids on the current paths, and 1,000,000 ids on the older paths, for which
    the vendor documents no maximum.
    """
    await auth.identify(request)
    caller = await to_thread.run_sync(deeds.writer, request, limits.CREATE_RATE)
    whole = request.headers.get("content-type", "")
    if whole.partition(";")[0].strip().lower() != "multipart/form-data":
        detail = f"Content-Type is {whole[:100]!r}: send multipart/form-data with an ids_file"
        raise Refusal(415, "unsupported_media_type", detail)
    bodies.check_encoding(request)
    lines = uploads.IdLines(version_of(request).max_ids)
    texts = {name: uploads.Text(name, MAX_FORM_FIELD_BYTES) for name in Options.model_fields}
    sinks: dict[str, uploads.Sink] = {"ids_file": lines, **texts}
    await uploads.read(whole, request.stream(), sinks, max_bytes=MAX_UPLOAD_BYTES)
    asked = validate(Options, parse_form_fields({name: sink.value for name, sink in texts.items()}))

    def create() -> Response:
        return creation.create_from_ids(request, caller, asked, None, lines.ids())

    return await to_thread.run_sync(create, limiter=request.app.state.listings)


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
_FILTERS = Body(
    FilterRequest,
    {"filters": {"title": "Data Engineer", "country": "Germany"}, "limit": 500},
    nested=(JobFilters,),
)
_DSL = Body(DslRequest, {"es_dsl_query": {"query": {"match": {"title": "engineer"}}}})
_IDS = Body(IdsRequest, {"ids": [91927485, 91927486]})
_ID_FILE = Body(
    _FILE_SCHEMA, {"ids_file": "91927485\n91927486\n"}, media_type="multipart/form-data"
)
_CREATED = Answer(
    "Accepted. Location is the path of its list of files.",
    creation.DataRequest,
    {"request_id": "0b8c2c4e-6a57-4a2b-9a50-0e6a3a2f6b11"},
    (headers.LOCATION, headers.REPLAYED),
)
_IN_PROGRESS = Header("X-Data-Request-Id", "Id of the data request that is in progress.")


def _operation(path: str, handler: Any, name: str, summary: str, body: Body) -> Operation:
    return Operation(
        f"POST {path}",
        handler,
        name,
        summary,
        {201: _CREATED},
        {
            **dict.fromkeys((400, 402, 413, 415, 422, 429, 502), ()),
            409: (headers.LOCATION, _IN_PROGRESS),
        },
        body,
        parameters=(idempotency.PARAMETER,),
        aliases=aliases(path),
        codes={409: "identical_request"},
    )


_OLDER = "/v1/professional_network/job/bulk_collect"
_NEWER = "/v2/data_requests/job_base"

OPERATIONS = (
    _operation(
        f"{_OLDER}/filter",
        by_filter,
        "collectByFiltersV1",
        "Collect by filters (older path)",
        _FILTERS,
    ),
    _operation(
        f"{_OLDER}/id_file",
        by_id_file,
        "collectByIdFileV1",
        "Collect by a file of ids (older path)",
        _ID_FILE,
    ),
    _operation(f"{_NEWER}/filter", by_filter, "collectByFilters", "Collect by filters", _FILTERS),
    _operation(
        f"{_NEWER}/es_dsl", by_dsl, "collectByQuery", "Collect by an Elasticsearch query", _DSL
    ),
    _operation(f"{_NEWER}/ids", by_ids, "collectByIds", "Collect by ids", _IDS),
    _operation(
        f"{_NEWER}/id_file", by_id_file, "collectByIdFile", "Collect by a file of ids", _ID_FILE
    ),
)
