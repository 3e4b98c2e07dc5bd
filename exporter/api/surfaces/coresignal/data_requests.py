"""Creates data requests of the Coresignal contract: parses the requests, makes the exports."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import msgspec
import structlog
from anyio import to_thread
from fastapi import Request
from starlette.responses import Response

from exporter.api import (
    auth,
    bodies,
    deeds,
    errors,
    headers,
    idempotency,
    responses,
    webhook_fields,
)
from exporter.api.bodies import TheBody, parse
from exporter.api.files import uploads
from exporter.api.refusal import Refusal
from exporter.api.state import service_of
from exporter.api.surface import Answer, Body, Header, Operation
from exporter.api.surfaces.coresignal.request_bodies import (
    DslRequest,
    FilterRequest,
    IdsRequest,
    Limited,
    Options,
    RequestIdentity,
    parse_form,
    parse_form_fields,
    parse_id_form,
    validate,
)
from exporter.api.surfaces.coresignal.versions import (
    Version,
    aliases,
    too_many_matches,
    version_of,
)
from exporter.contracts.coresignal import JobFilters
from exporter.core import canonical, limits
from exporter.core.exports import Export
from exporter.core.plans import CreditsSpent
from exporter.errors import ConfigurationError, FieldProblem, QueryError, within
from exporter.service.drafts import NewExport
from exporter.service.exports import ExportService
from exporter.store.base import Idempotency
from exporter.store.redis.api_keys import ApiKey

log: structlog.stdlib.BoundLogger = structlog.get_logger()

FILE_RETENTION = timedelta(days=30)
"""Time during which files can be downloaded, any number of times."""
ROWS_PER_FILE = 10_000
MAX_UPLOAD_BYTES = limits.ID_LIST_BYTES.default
"""Maximum size of an uploaded list of ids, enough for a million ids."""
MAX_CONCURRENT_ID_LISTS = 2
"""Most id lists that one process turns into exports at once; a long list needs 200 MB for that."""
MAX_DSL_CHARS = 15_000
"""Maximum length of an Elasticsearch query, as the vendor documents."""
MAX_FORM_FIELD_BYTES = 4_000
"""Maximum size of a text field in an uploaded form."""


class DataRequest(msgspec.Struct):
    """A data request that was accepted."""

    request_id: str


def by_filter(request: Request, body: TheBody) -> Response:
    """Collects all postings that match the filters.

    On the current paths a request may match up to 10,000 postings. If more match, the request for
    the list of files is answered with 422, as the vendor documents; with a metered key, this
    request itself is answered with 422. The older paths have no maximum and split the postings into
    several files.
    """
    caller = deeds.writer(request, limits.CREATE_RATE)
    asked = parse(
        request, body, FilterRequest, check=lambda fields: _find_problems(request, caller, fields)
    )
    return _create_from_search(request, caller, asked, asked.filters)


def by_dsl(request: Request, body: TheBody) -> Response:
    """Collects all postings that match an Elasticsearch query, if the source supports that."""
    caller = deeds.writer(request, limits.CREATE_RATE)
    asked = parse(
        request, body, DslRequest, check=lambda fields: _find_problems(request, caller, fields)
    )
    given = [query for query in (asked.es_dsl_query, asked.query) if query is not None]
    if len(given) != 1:
        raise Refusal(422, "invalid_request", "give either es_dsl_query or query")
    query = {"query": asked.query} if asked.query is not None else given[0]
    if len(msgspec.json.encode(query).decode()) > MAX_DSL_CHARS:
        raise Refusal(422, "invalid_request", f"the query is over {MAX_DSL_CHARS} characters")
    return _create_from_search(request, caller, asked, {"es_dsl": query})


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
                check=lambda fields: _find_problems(request, caller, fields),
            )
        ids = uploads.check_ids(asked.ids, version_of(request).max_ids)
        return _create_from_ids(request, caller, asked, asked.limit, ids)

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
        return _create_from_ids(request, caller, asked, None, lines.ids())

    return await to_thread.run_sync(create, limiter=request.app.state.listings)


def _create_from_ids(
    request: Request,
    caller: ApiKey,
    asked: Options,
    limit: int | None,
    ids: Sequence[int],
) -> Response:
    texts = list(map(str, ids))
    digest = hashlib.sha256("\n".join(texts).encode()).hexdigest()
    mark = _idempotency(request, asked, search={}, limit=limit, ids=digest)
    hook = _read_webhook(request, caller, asked)
    meant, export = _create(request, caller, {}, limit, mark, hook, texts)
    return _created_response(request, export, idempotency.log_and_headers(export, meant))


def _create_from_search(
    request: Request, caller: ApiKey, asked: Limited, search: Mapping[str, Any]
) -> Response:
    """Creates a data request for a search, and returns the response with its id.

    Raises Refusal 409, as the vendor documents, if an identical search of the caller is in
    progress. This check is omitted if the caller sends an Idempotency-Key, because the caller then
    decides which requests are the same.

    The check uses an idempotency key of our own, made of the search, which is free again when its
    export has ended. The store compares the key in the step that creates the export, so two
    concurrent requests cannot both create one. The store remembers a key for a day.
    """
    version, limit = version_of(request), asked.limit
    if version.max_rows is not None:
        # One row more than the maximum shows that too many match; no file is served then.
        limit = min(limit or version.max_rows + 1, version.max_rows + 1)
    mark = _idempotency(request, asked, search=dict(search), limit=limit, ids=None)
    hook = _read_webhook(request, caller, asked, search)
    same = "" if mark else _search_digest(request, caller, search, limit)
    payable = _affordable_limit(request, caller, search, limit)
    # A caller's own key cannot contain a blank, so the two kinds of key never collide. The 0 makes
    # the key equal to that of version 0.2.0.
    own = mark or Idempotency(f"identical {same} 0", same, until_ended=True)
    meant, export = _create(request, caller, search, payable, own, hook)
    if mark or export.id == meant:
        return _created_response(request, export, idempotency.log_and_headers(export, meant))
    log.info("export.identical", export_id=export.id, user_id=export.user_id)
    raise Refusal(
        409,
        "identical_request",
        "Identical data request is already in progress.",
        headers={"X-Data-Request-Id": export.id, "Location": _files_path(version, export)},
    )


def _idempotency(request: Request, asked: Options, **rest: Any) -> Idempotency | None:
    marked = RequestIdentity(
        webhook_url=asked.webhook_url, webhook_events=asked.webhook_events, **rest
    )
    return idempotency.read_key(request, marked)


def _read_webhook(
    request: Request,
    caller: ApiKey,
    asked: Options,
    search: Mapping[str, Any] | None = None,
) -> webhook_fields.RequestedWebhook:
    """Returns the webhook that the request asks for.

    Raises Refusal if `webhook_url` or `webhook_events` is wrong; its text names wrong filters of
    the `search`, too.
    """
    wanted = webhook_fields.read_webhook(request, caller.user_id, asked)
    if wanted.wrong:
        service = service_of(request)
        found = service.find_problems(
            user_id=caller.user_id,
            source=service.config.surfaces.coresignal,
            search=search,
            wrong=wanted.wrong,
        )
        raise _to_error(service, QueryError(found))
    return wanted


def _find_problems(
    request: Request, caller: ApiKey, fields: Mapping[str, Any]
) -> Sequence[FieldProblem]:
    service = service_of(request)
    found = service.find_problems(
        user_id=caller.user_id,
        source=service.config.surfaces.coresignal,
        search=fields.get("filters"),
        wrong=webhook_fields.find_problems(request, caller.user_id, fields),
    )
    error = _to_error(service, QueryError(found))
    return error.problems if isinstance(error, Refusal) else ()


def _affordable_limit(
    request: Request, caller: ApiKey, search: Mapping[str, Any], limit: int | None
) -> int | None:
    """Returns the limit; with a metered key, lowered to the number of matching postings.

    Credits are reserved for the limit, so a limit above the number of matches would reserve too
    many. The limit is lowered only if it exceeds the maximum of the contract's version. Raises
    Refusal 422 if more postings match than this maximum, before any credits are reserved.
    """
    service, most = service_of(request), version_of(request).max_rows
    if not caller.plan.metered or most is None or limit is None or limit <= most:
        return limit
    try:
        count = service.estimate(
            service.config.surfaces.coresignal,
            search,
            user_id=caller.user_id,
            limit=limit,
            plan=caller.plan,
        )
    except QueryError as error:
        raise _to_error(service, error) from None
    if count is not None and count > most:
        raise too_many_matches(most)
    return limit if count is None else max(count, 1)


def _search_digest(
    request: Request, caller: ApiKey, search: Mapping[str, Any], limit: int | None
) -> str:
    service = service_of(request)
    try:
        checked = service.source(service.config.surfaces.coresignal).search(
            search, service.clock.now(), user_id=caller.user_id
        )
    except QueryError as error:
        problems = within("search", error.problems)
        raise _to_error(service, QueryError(problems)) from None
    surface = version_of(request).surface
    return canonical.digest({"surface": surface, "query": checked.query, "limit": limit})


def _create(
    request: Request,
    caller: ApiKey,
    search: Mapping[str, Any],
    limit: int | None,
    mark: Idempotency | None,
    hook: webhook_fields.RequestedWebhook,
    ids: Sequence[str] | None = None,
) -> tuple[str, Export]:
    """Creates the export of a data request; returns the id chosen for it, and the export.

    The export has another id if an earlier request with the same idempotency key created it (a
    replay). Raises Refusal 402 if the key has too few credits, before any work is done; the vendor
    reports missing credits only when files are requested.
    """
    service, version = service_of(request), version_of(request)
    new = NewExport(
        user_id=caller.user_id,
        surface=version.surface,
        source=service.config.surfaces.coresignal,
        search=search,
        format="json",
        compression="gzip",
        limit=limit,
        ids=ids,
        rows_per_file=ROWS_PER_FILE,
        # A file must not outlive its record.
        keep=min(FILE_RETENTION, service.settings.record_retention),
        wrong=hook.wrong,
    )
    try:
        export = service.create(new, caller.plan, idempotency=mark, webhook=hook.record)
    except QueryError as error:
        raise _to_error(service, error) from None
    except CreditsSpent:
        raise Refusal(402, "credits_spent", "Insufficient credits") from None
    return new.id, export


def _to_error(service: ExportService, error: QueryError) -> Exception:
    """Returns the exception to raise for a search that the export service rejected.

    The exception is a Refusal with this contract's field names, or ConfigurationError if the
    contract's source is not configured.
    """
    problems: list[FieldProblem] = []
    for one in error.problems:
        place, *rest = one["loc"]
        if place == "source":
            # Callers do not name a source in this contract: only the operator can fix this.
            name = service.config.surfaces.coresignal
            return ConfigurationError(
                f"[surfaces] coresignal = {name!r} is not the name of a configured source"
            )
        if rest == ["es_dsl"] and one["type"] == "extra_forbidden":
            detail = "the source does not support Elasticsearch queries: send filters to …/filter"
            return Refusal(422, "dsl_unsupported", detail)
        field = "filters" if place == "search" else place
        problems.append({**one, "loc": ("body", field, *rest)})
    return errors.invalid(problems)


def _created_response(request: Request, export: Export, headers: Mapping[str, str]) -> Response:
    place = {"Location": _files_path(version_of(request), export)}
    return responses.reply(DataRequest(export.id), 201, {**place, **headers})


def _files_path(version: Version, export: Export) -> str:
    # Without host and base path, like the vendor's Location header.
    return f"{version.path}/{export.id}/files"


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
    DataRequest,
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
    )


_OLDER = "/v1/professional_network/job/bulk_collect"
_NEWER = "/v2/data_requests/job_base"

OPERATIONS = tuple(
    _operation(*one)
    for one in (
        (
            f"{_OLDER}/filter",
            by_filter,
            "collectByFiltersV1",
            "Collect by filters (older path)",
            _FILTERS,
        ),
        (
            f"{_OLDER}/id_file",
            by_id_file,
            "collectByIdFileV1",
            "Collect by a file of ids (older path)",
            _ID_FILE,
        ),
        (f"{_NEWER}/filter", by_filter, "collectByFilters", "Collect by filters", _FILTERS),
        (
            f"{_NEWER}/es_dsl",
            by_dsl,
            "collectByQuery",
            "Collect by an Elasticsearch query",
            _DSL,
        ),
        (f"{_NEWER}/ids", by_ids, "collectByIds", "Collect by ids", _IDS),
        (
            f"{_NEWER}/id_file",
            by_id_file,
            "collectByIdFile",
            "Collect by a file of ids",
            _ID_FILE,
        ),
    )
)
