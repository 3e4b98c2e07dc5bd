"""Data requests of the Coresignal contract: what is asked, and the export that comes of it."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Any, Literal, NamedTuple, TypeVar
from urllib.parse import parse_qs

import msgspec
import structlog
from anyio import to_thread
from fastapi import Request
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from starlette.responses import Response

from exporter.api import auth, bodies, errors, idempotency, responses, webhook_fields
from exporter.api.bodies import TheBody, parse
from exporter.api.files import uploads
from exporter.api.refusal import Refusal
from exporter.api.state import service_of
from exporter.core import canonical
from exporter.core.exports import Export
from exporter.core.plans import CreditsSpent
from exporter.errors import ConfigurationError, FieldProblem, QueryError
from exporter.service.exports import ExportService
from exporter.store.base import Idempotency, KeySpent
from exporter.store.redis.api_keys import ApiKey

log: structlog.stdlib.BoundLogger = structlog.get_logger()

KEPT = timedelta(days=30)
"""How long files can be downloaded, as often as wanted."""
ROWS_PER_FILE = 10_000
LARGEST_UPLOAD = 16 * 1024 * 1024
"""Bytes of an uploaded list of ids: a million of them fit."""
LISTINGS = 2
"""Uploaded lists that one process turns into exports at once: a long one takes 200 MB then."""
LONGEST_DSL = 15_000
"""Characters of an Elasticsearch query, as the vendor documents."""
LONGEST_FIELD = 4_000
"""Bytes of a text in an uploaded form."""

Model = TypeVar("Model", bound=BaseModel)


class Version(NamedTuple):
    """What the two generations of the contract do not have in common."""

    surface: str
    path: str
    """Where requests are found again by their id."""
    most_ids: int
    most_rows: int | None
    """Rows that a request by filters may match; None: any number, in several files."""


V1 = Version("coresignal", "/v1/bulk_collect", 1_000_000, None)
V2 = Version("coresignal-v2", "/v2/data_requests", 10_000, 10_000)


def version_of(request: Request) -> Version:
    return V1 if request.url.path.removeprefix("/cdapi").startswith("/v1/") else V2


def _given(url: str | None) -> str | None:
    """A blank one is none, because the vendor's templates leave it blank."""
    return url if url and url.strip() else None


def _number(value: Any) -> int:
    text = value if isinstance(value, str) else str(value)
    if isinstance(value, bool | float) or not (text.isascii() and text.isdigit()):
        raise ValueError(f"{text[:50]!r} is no id: ids are numbers")
    if len(text) > uploads.MAX_ID_DIGITS:
        raise ValueError(f"{text[:50]!r} is no id: it has over {uploads.MAX_ID_DIGITS} digits")
    return int(text)


class _Options(webhook_fields.WebhookFields):
    model_config = ConfigDict(extra="forbid", strict=True)

    webhook_url: Annotated[str | None, AfterValidator(_given)] = Field(
        None, description=webhook_fields.WEBHOOK_URL_DESCRIPTION + " A blank text is none."
    )
    data_format: Literal["json"] | None = Field(
        None, description="`json`, which it is in any case: older clients send it."
    )


class _Limited(_Options):
    limit: int | None = Field(None, ge=1, description="Records at most.")


class FilterRequest(_Limited):
    """Which postings to collect, by their fields. An unknown field is refused, not ignored."""

    filters: dict[str, Any] = Field(description="All optional; `{}` is every posting.")


class DslRequest(_Limited):
    """Which postings to collect, by an Elasticsearch query in either documented place."""

    es_dsl_query: dict[str, Any] | None = Field(None, description='`{"query": {…}}`')
    query: dict[str, Any] | None = Field(None, description="The same without its outer object.")


class IdsRequest(_Limited):
    """Which postings to collect, by their ids."""

    ids: list[Annotated[int, BeforeValidator(_number)]] = Field(
        description="Numbers, or texts of digits; none twice."
    )


class _Asked(BaseModel):
    """What tells two requests apart, for the header Idempotency-Key."""

    search: dict[str, Any]
    limit: int | None
    webhook_url: str | None
    webhook_events: list[str] | None
    ids: str | None


class DataRequest(msgspec.Struct):
    """A data request that was accepted."""

    request_id: str


def by_filter(request: Request, body: TheBody) -> Response:
    """Collect all postings that match the filters.

    On the current paths a request may match 10,000 postings; that more did is told, as the vendor
    tells it, when its files are asked for. The older paths split any number into several files.
    """
    caller = auth.writer(request)
    asked = parse(request, body, FilterRequest)
    return _search(request, caller, asked, asked.filters)


def by_dsl(request: Request, body: TheBody) -> Response:
    """Collect all postings that match an Elasticsearch query, if the source takes one."""
    caller = auth.writer(request)
    asked = parse(request, body, DslRequest)
    given = [query for query in (asked.es_dsl_query, asked.query) if query is not None]
    if len(given) != 1:
        raise Refusal(422, "invalid_request", "give es_dsl_query or query, one of them")
    query = {"query": asked.query} if asked.query is not None else given[0]
    if len(msgspec.json.encode(query).decode()) > LONGEST_DSL:
        raise Refusal(422, "invalid_request", f"the query is over {LONGEST_DSL} characters")
    return _search(request, caller, asked, {"es_dsl": query})


async def by_ids(request: Request) -> Response:
    """Collect the postings of some ids, given as JSON or as the field `ids` of a form."""
    caller = await to_thread.run_sync(auth.writer, request)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        sinks = {
            name: uploads.Text(name, bodies.MAX_BODY_BYTES) for name in IdsRequest.model_fields
        }
        whole = request.headers["content-type"]
        chunks = request.stream()
        await uploads.read(whole, chunks, sinks, max_bytes=bodies.MAX_BODY_BYTES, repeatable="ids")
        asked = _form({name: sink.value for name, sink in sinks.items()})
    elif kind == "application/x-www-form-urlencoded":
        text = (await bodies.read(request)).decode("utf-8", "replace")
        fields = parse_qs(text, keep_blank_values=True, max_num_fields=20_000)
        asked = _form({name: ",".join(values) for name, values in fields.items()})
    else:
        asked = parse(request, await bodies.read(request), IdsRequest)
    ids = uploads.check_ids(asked.ids, version_of(request).most_ids)
    return await to_thread.run_sync(_listed, request, caller, asked, asked.limit, ids)


async def by_id_file(request: Request) -> Response:
    """Collect the postings of the ids in a CSV or text file, one a line, in its order.

    10,000 ids on the current paths, 1,000,000 on the older ones, which the vendor did not bound.
    """
    caller = await to_thread.run_sync(auth.writer, request)
    whole = request.headers.get("content-type", "")
    if whole.partition(";")[0].strip().lower() != "multipart/form-data":
        detail = f"Content-Type is {whole[:100]!r}: send multipart/form-data with an ids_file"
        raise Refusal(415, "unsupported_media_type", detail)
    lines = uploads.IdLines(version_of(request).most_ids)
    texts = {name: uploads.Text(name, LONGEST_FIELD) for name in _Options.model_fields}
    sinks: dict[str, uploads.Sink] = {"ids_file": lines, **texts}
    await uploads.read(whole, request.stream(), sinks, max_bytes=LARGEST_UPLOAD)
    asked = _valid(_Options, _events_listed({name: sink.value for name, sink in texts.items()}))

    def create() -> Response:
        return _listed(request, caller, asked, None, lines.ids())

    return await to_thread.run_sync(create, limiter=request.app.state.listings)


def _form(fields: Mapping[str, str]) -> IdsRequest:
    """A form with the field `ids`: `1,2`, `[1, 2]` or one a line."""
    given = _events_listed(fields)
    if "ids" in given:
        given["ids"] = given["ids"].strip("[] \r\n\t").replace(",", " ").split()
    if str(given.get("limit", "")).isdecimal():
        given["limit"] = int(given["limit"])
    return _valid(IdsRequest, given)


def _events_listed(fields: Mapping[str, str]) -> dict[str, Any]:
    """The fields of a form that are not blank; the events are names with commas between."""
    given: dict[str, Any] = {name: text for name, text in fields.items() if text.strip()}
    if "webhook_events" in given:
        given["webhook_events"] = given["webhook_events"].replace(",", " ").split()
    return given


def _valid(model: type[Model], given: Mapping[str, Any]) -> Model:
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise errors.invalid(errors.field_problems(error, model)) from None


def _listed(
    request: Request,
    caller: ApiKey,
    asked: _Options,
    limit: int | None,
    ids: Sequence[int],
) -> Response:
    texts = list(map(str, ids))
    digest = hashlib.sha256("\n".join(texts).encode()).hexdigest()
    mark = _mark(request, asked, search={}, limit=limit, ids=digest)
    hook = _hook(request, caller, asked)
    meant, export = _create(request, caller, {}, limit, mark, hook, texts)
    return _created(request, export, idempotency.log_and_headers(export, meant))


def _search(
    request: Request, caller: ApiKey, asked: _Limited, search: Mapping[str, Any]
) -> Response:
    """Creates, unless the same search of the caller's is under way: 409 then, as the vendor does.

    An Idempotency-Key takes the place of that: with one of their own, the caller says which
    requests are the same. Without, the search itself is the key, followed by how often it was
    collected before, since a search that has ended may be collected again. The store decides, in
    the step that creates, so two at once cannot both be the first. It knows a search for a day
    after its first collection.
    """
    version, limit = version_of(request), asked.limit
    if version.most_rows is not None:
        # One more than may match: the difference between enough and too many, read but not sent.
        limit = min(limit or version.most_rows + 1, version.most_rows + 1)
    mark = _mark(request, asked, search=dict(search), limit=limit, ids=None)
    hook = _hook(request, caller, asked)
    same = "" if mark else _digest(request, caller, search, limit)
    payable = _payable(request, caller, search, limit)
    time = 0
    while True:
        # Nobody's own key has a blank in it.
        own = mark or Idempotency(f"identical {same} {time}", same)
        time += 1
        try:
            meant, export = _create(request, caller, search, payable, own, hook)
        except KeySpent:
            if mark:
                raise
            continue
        if mark or export.id == meant:
            return _created(request, export, idempotency.log_and_headers(export, meant))
        if not export.terminal:
            log.info("export.identical", export_id=export.id, user_id=export.user_id)
            raise Refusal(
                409,
                "identical_request",
                "Identical data request is already in progress.",
                headers={"X-Data-Request-Id": export.id, "Location": _place(version, export)},
            )


def _mark(request: Request, asked: _Options, **rest: Any) -> Idempotency | None:
    marked = _Asked(webhook_url=asked.webhook_url, webhook_events=asked.webhook_events, **rest)
    return idempotency.read_key(request, marked)


def _hook(request: Request, caller: ApiKey, asked: _Options) -> webhook_fields.RequestedWebhook:
    """Whom to tell. Raises Refusal, before the source is asked anything."""
    wanted = webhook_fields.read_webhook(request, caller.user_id, asked)
    if wanted["wrong"]:
        raise _refused(service_of(request), QueryError(wanted["wrong"]))
    return wanted


def _payable(
    request: Request, caller: ApiKey, search: Mapping[str, Any], limit: int | None
) -> int | None:
    """The limit, lowered for a metered key to what matches now: credits are set aside for it.

    A request that matches too many is refused here, where nothing has been paid yet.
    """
    service, most = service_of(request), version_of(request).most_rows
    if not caller.plan.metered or most is None or limit is None or limit <= most:
        return limit
    try:
        count = service.estimate(
            service.config.surfaces.coresignal, search, user_id=caller.user_id, limit=limit
        )
    except QueryError as error:
        raise _refused(service, error) from None
    if count is not None and count > most:
        raise too_many_matches(most)
    return limit if count is None else max(count, 1)


def too_many_matches(most: int) -> Refusal:
    """The refusal of a search that matches too many, in the vendor's words."""
    detail = f"Request matched too many IDs. Maximum is {most:,} IDs"
    return Refusal(422, "too_many_matches", detail)


def _digest(request: Request, caller: ApiKey, search: Mapping[str, Any], limit: int | None) -> str:
    service = service_of(request)
    try:
        checked = service.source(service.config.surfaces.coresignal).search(
            search, service.clock.now(), user_id=caller.user_id
        )
    except QueryError as error:
        problems: list[FieldProblem] = [
            {**one, "loc": ("search", *one["loc"])} for one in error.problems
        ]
        raise _refused(service, QueryError(problems)) from None
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
    """The id that was meant for the export, and the export that there is now.

    The vendor tells of missing credits when files are asked for, we before any work is done.
    """
    service, version, meant = service_of(request), version_of(request), str(uuid.uuid4())
    try:
        export = service.create(
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
            keep=min(KEPT, service.settings.record_retention),
            export_id=meant,
            idempotency=mark,
            plan=caller.plan,
            feature="bulk",
            **hook,
        )
    except QueryError as error:
        raise _refused(service, error) from None
    except CreditsSpent:
        raise Refusal(402, "credits_spent", "Insufficient credits") from None
    return meant, export


def _refused(service: ExportService, error: QueryError) -> Exception:
    """What to raise for a wrong search: a refusal in the words of this contract."""
    problems: list[FieldProblem] = []
    for problem in error.problems:
        place, *rest = problem["loc"]
        if place == "source":
            # The caller names no source here: only the operator can mend this.
            name = service.config.surfaces.coresignal
            return ConfigurationError(
                f"[surfaces] coresignal = {name!r} names no source of the configuration"
            )
        if rest == ["es_dsl"] and problem["type"] == "extra_forbidden":
            detail = "the source takes no Elasticsearch queries: use filters, at …/filter"
            return Refusal(422, "dsl_unsupported", detail)
        field = "filters" if place == "search" else place
        problems.append({**problem, "loc": ("body", field, *rest)})
    return errors.invalid(problems)


def _created(request: Request, export: Export, headers: Mapping[str, str]) -> Response:
    place = {"Location": _place(version_of(request), export)}
    return responses.reply(DataRequest(export.id), 201, {**place, **headers})


def _place(version: Version, export: Export) -> str:
    # Without a host and without the base path, as the vendor writes it.
    return f"{version.path}/{export.id}/files"
