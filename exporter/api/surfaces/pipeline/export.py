"""The pipeline contract: the caller's own jobs as one file in the response itself.

The filters, the compression, `Prefer: respond-async` and the status 505 are our additions. The
contract plans filters and compression, but has no way to request a large file now and fetch it
later. Deleted jobs (`deleted_at` is set) are left out; the contract does not mention them.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Generator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
import structlog
from anyio import to_thread
from fastapi import Request
from isal import isal_zlib
from starlette.responses import Response

from exporter.api import auth, deeds, errors, headers, responses, webhook_fields
from exporter.api.edge import is_head
from exporter.api.files.streams import Stream
from exporter.api.openapi import bounds
from exporter.api.refusal import Refusal
from exporter.api.state import limits_of, service_of
from exporter.api.surface import Answer, Header, Operation
from exporter.api.surfaces.native import views
from exporter.contracts.pipeline import COLUMNS, SOURCES, STATUSES
from exporter.core import events
from exporter.core.checkpoints import RowCounts
from exporter.core.exports import Dialect
from exporter.core.limits import CREATE_RATE, PIPELINE_RATE
from exporter.errors import (
    ConfigurationError,
    FieldProblem,
    QueryError,
    SourceError,
    problem,
    within,
)
from exporter.formats import registry
from exporter.formats.base import Format, State
from exporter.formats.envelope import Envelope
from exporter.service.drafts import NewExport
from exporter.service.exports import ExportService
from exporter.sources.sql.source import Snapshot, SqlSource
from exporter.store.redis.api_keys import ApiKey
from exporter.store.redis.rate_limits import Window

log: structlog.stdlib.BoundLogger = structlog.get_logger()

CSV_COLUMNS = tuple(
    name for name in COLUMNS if name not in ("job_description", "ai_reasoning", "scraped_at")
)
FORMATS: Mapping[str, str] = {"json": "json_envelope", "csv": "csv"}
"""Maps the contract's format names to the service's format names."""
_GZIP_LEVEL = 1
_GZIP_WINDOW_BITS = 31
"""Value of zlib's `wbits`: the largest window (15), plus 16 for a gzip header and trailer."""


class Job(msgspec.Struct):
    """A job of the caller in a JSON file.

    A CSV file does not have job_description, ai_reasoning and scraped_at.
    """

    id: str
    company_name: str | None
    job_title: str | None
    status: str | None
    source: str | None
    location: str | None
    is_remote: bool | None
    job_url: str | None
    job_description: str | None
    salary_range_min: float | None
    salary_range_max: float | None
    ai_match_score: float | None
    ai_reasoning: str | None
    notes: str | None
    tags: list[str] | None
    applied_at: str | None
    interview_at: str | None
    offer_at: str | None
    rejected_at: str | None
    scraped_at: str | None
    created_at: str | None
    updated_at: str | None


class Jobs(msgspec.Struct):
    """The content of a JSON file."""

    exported_at: str
    total: int
    jobs: list[Job]


_EXAMPLE = {
    "exported_at": "2026-03-02T09:15:04Z",
    "total": 1,
    "jobs": [
        {
            "id": "7d1c2f0e-93a4-4a53-8a44-0f5a1f9a2b10",
            "company_name": "Northwind",
            "job_title": "Data Engineer",
            "status": "applied",
            "source": "manual",
            "location": "Nairobi, KE",
            "is_remote": False,
            "job_url": "https://northwind.example/jobs/41",
            "job_description": "Own the warehouse.",
            "salary_range_min": 90000,
            "salary_range_max": 120000,
            "ai_match_score": 74,
            "ai_reasoning": None,
            "notes": "Referred by Amina",
            "tags": ["warehouse", "referral"],
            "applied_at": "2026-02-20T08:00:00Z",
            "interview_at": None,
            "offer_at": None,
            "rejected_at": None,
            "scraped_at": None,
            "created_at": "2026-02-18T16:40:00Z",
            "updated_at": "2026-02-20T08:00:00Z",
        }
    ],
}
_QUEUED_EXAMPLE = {
    **views.QUEUED_EXAMPLE,
    "surface": "pipeline",
    "source": "pipeline",
    "query": {"user_id": "acme", "status": ["applied"]},
    "format": "json_envelope",
    "columns": list(COLUMNS),
    "priority": 0,
}


async def export(request: Request) -> Response:
    """Downloads all jobs of the caller as of one moment, however many there are.

    The end of the body is sent only after every job was sent. If the connection breaks before the
    end of the body, the file is incomplete.
    """
    return await to_thread.run_sync(_respond, request)


class _ParsedQuery(NamedTuple):
    format: str
    csv_safe: bool
    filters: dict[str, Any]
    hook: webhook_fields.RequestedWebhook


def _respond(request: Request) -> Response:
    caller, service = auth.reader(request), service_of(request)
    _count_request(request, caller, service)
    # A HEAD must change nothing, so it creates no export.
    later = _prefers_async(request) and not is_head(request)
    now = service.clock.now()
    asked = _parse_query(request, caller.user_id, later, now)
    if later:
        return _create_export(request, service, asked, now)
    if request.scope["http_version"] == "1.0":
        # In HTTP/1.0 a body ends with its connection, so an incomplete file looks complete.
        raise Refusal(
            505,
            "http_version_not_supported",
            "over HTTP/1.0 an incomplete file looks complete: use HTTP/1.1; in nginx, set"
            " `proxy_http_version 1.1`",
        )
    source = _source(service)
    query = source.search(asked.filters, now, user_id=caller.user_id).query
    columns = CSV_COLUMNS if asked.format == "csv" else COLUMNS
    snapshot = source.snapshot(query, columns)
    gzip = _accepts_gzip(request.headers.get("accept-encoding", ""))
    headers = {
        "Content-Type": registry.FORMATS[FORMATS[asked.format]].media_type,
        "Content-Disposition": f'attachment; filename="{_file_name(asked, now)}"',
        "Cache-Control": "private, no-store",
        "Vary": "Accept-Encoding, Prefer",
    }
    if gzip:
        headers["Content-Encoding"] = "gzip"
    if is_head(request):
        # The length is not known, so the header that Starlette adds would be wrong.
        answer = Response(headers=headers)
        del answer.headers["content-length"]
        return answer
    pieces = _file_pieces(snapshot, asked, now, caller.user_id)
    produced = _compress(pieces) if gzip else pieces
    return Stream(lambda: produced, request.app.state.lanes, headers, interrupt=snapshot.interrupt)


# -- the request ------------------------------------------------------------------------------


def _count_request(request: Request, caller: ApiKey, service: ExportService) -> None:
    """Counts the request and adds the rate-limit headers. Raises Refusal 429 over the limit."""
    window = limits_of(request).acquire(
        f"{PIPELINE_RATE.name}:{caller.id}", service.bound(PIPELINE_RATE, caller.plan)
    )
    resets = window.resets_at
    request.state.headers |= {
        "X-RateLimit-Limit": str(window.limit),
        "X-RateLimit-Remaining": str(window.remaining),
        # In milliseconds, as this contract documents.
        "X-RateLimit-Reset": str(math.ceil(resets.timestamp() * 1000)),
    }
    if not window.allowed:
        raise _rate_refusal(window)


def _rate_refusal(window: Window) -> Refusal:
    wait = math.ceil(window.retry_after)
    return Refusal(
        429,
        "rate_limit_exceeded",
        f"Rate limit exceeded: at most {window.limit} requests per window; try again in {wait} s",
        headers={"Retry-After": str(wait)},
        details={
            "retryAfter": wait,
            "limit": window.limit,
            "remaining": window.remaining,
            "resetAt": responses.zulu_seconds(window.resets_at),
        },
    )


def _parse_query(request: Request, user_id: str, later: bool, now: datetime) -> _ParsedQuery:
    given = request.query_params
    problems: list[FieldProblem] = []
    single = ("format", "from", "to", "csv_safe", "webhook_url")
    listed = ("status", "source", "webhook_events")
    for name in given:
        if name not in (*single, *listed):
            known = ", ".join((*single, *listed))
            problems.append(problem(("query", name), f"unknown parameter; known: {known}"))
        elif name in single and len(given.getlist(name)) > 1:
            problems.append(problem(("query", name), "given more than once"))
    wanted = given.get("format", "json")
    if wanted not in FORMATS:
        text = f"Invalid format {wanted[:100]!r}: give {' or '.join(FORMATS)}"
        problems.append(problem(("query", "format"), text))
    csv_safe = given.get("csv_safe", "false")
    if csv_safe not in ("true", "false"):
        problems.append(problem(("query", "csv_safe"), f"{csv_safe[:100]!r} is not true or false"))
    fields = webhook_fields.WebhookFields.model_construct(
        webhook_url=given.get("webhook_url"), webhook_events=given.getlist("webhook_events") or None
    )
    hook = webhook_fields.read_webhook(request, user_id, fields)
    problems += [problem(("query", str(one["loc"][0])), one["msg"]) for one in hook.wrong]
    if fields.webhook_url is not None and not later:
        text = "a webhook needs the header Prefer: respond-async: send that, too"
        problems.append(problem(("query", "webhook_url"), text))
    filters: dict[str, Any] = {name: given[name] for name in ("from", "to") if name in given}
    filters |= {name: given.getlist(name) for name in ("status", "source") if name in given}
    try:
        _source(service_of(request)).search(filters, now, user_id=user_id)
    except QueryError as error:
        problems += within("query", error.problems)
    except ConfigurationError:
        if not problems:
            raise
    if problems:
        raise _invalid(problems)
    return _ParsedQuery(wanted, csv_safe == "true", filters, hook)


def _invalid(problems: Sequence[FieldProblem]) -> Refusal:
    return Refusal(400, "validation_error", errors.invalid(problems).detail, problems=problems)


def _prefers_async(request: Request) -> bool:
    preferences = ",".join(request.headers.getlist("prefer")).split(",")
    return any(one.partition(";")[0].strip().lower() == "respond-async" for one in preferences)


def _file_name(asked: _ParsedQuery, now: datetime) -> str:
    return f"pipeline-jobs-{now:%Y-%m-%d}.{asked.format}"


def _accepts_gzip(header: str) -> bool:
    """True if the Accept-Encoding header allows gzip.

    The entry `gzip` decides, otherwise `x-gzip`, otherwise `*`. Without any of them gzip is not
    allowed.
    """
    allowed: dict[str, bool] = {}
    for one in header.lower().split(","):
        name, _, quality = one.replace(" ", "").partition(";q=")
        try:
            allowed[name] = not quality or float(quality) > 0
        except ValueError:
            allowed[name] = False
    return allowed.get("gzip", allowed.get("x-gzip", allowed.get("*", False)))


def _source(service: ExportService) -> SqlSource:
    name = service.config.surfaces.pipeline
    source = service.source(name)
    if not isinstance(source, SqlSource):
        raise ConfigurationError(f"[surfaces] pipeline = {name!r} is not a source of type sql")
    missing = [column for column in COLUMNS if column not in source.columns]
    if missing:
        raise ConfigurationError(
            f"[sources.{name}] columns lacks {', '.join(missing)}, which the pipeline contract"
            " needs: add these columns, or leave `columns` out"
        )
    return source


# -- the response -----------------------------------------------------------------------------


def _create_export(
    request: Request, service: ExportService, asked: _ParsedQuery, now: datetime
) -> Response:
    """Creates an export of the same jobs, which a worker writes later; returns the response 202."""
    caller = deeds.writer(request, CREATE_RATE)
    new = NewExport(
        user_id=caller.user_id,
        surface="pipeline",
        source=service.config.surfaces.pipeline,
        search=asked.filters,
        format=FORMATS[asked.format],
        columns=CSV_COLUMNS if asked.format == "csv" else COLUMNS,
        dialect=Dialect(guard=asked.csv_safe, joined=True, exported_at=responses.zulu_seconds(now)),
        file_name=_file_name(asked, now),
    )
    try:
        created = service.create(new, caller.plan, webhook=asked.hook.record)
    except QueryError as error:
        raise _invalid(
            [{**one, "loc": ("query", *one["loc"][1:])} for one in error.problems]
        ) from None
    headers = {
        "Location": responses.address(service, f"/v1/exports/{created.id}"),
        "Preference-Applied": "respond-async",
        **responses.retry_after_header(created, now),
    }
    return responses.reply(views.view(service, created, with_link=caller.may_read), 202, headers)


def _file_pieces(
    snapshot: Snapshot, asked: _ParsedQuery, now: datetime, user_id: str
) -> Generator[bytes]:
    """Yields the bytes of the file in pieces; the first piece is ready when the jobs are counted.

    Raises Refusal 500 if the database fails before the first piece, and SourceError if it fails
    later.
    """
    begun, row_counts, state, size = time.monotonic(), RowCounts(), State(), 0
    started = False
    piece = bytearray()
    try:
        with snapshot:
            encoder = _encoder(asked, now, snapshot.total)
            started = True
            encoder.open(state, piece)
            yield bytes(piece)
            for rows in snapshot.pages():
                piece.clear()
                encoder.encode(rows, row_counts, state, piece)
                state.rows += len(rows)
                size += len(piece)
                yield bytes(piece)
    except SourceError as error:
        log.warning("pipeline.failed", user_id=user_id, rows=state.rows, reason=str(error))
        if started:
            raise
        raise Refusal(500, "internal", "the database did not return the jobs: try again") from None
    piece.clear()
    encoder.close(state, piece)
    yield bytes(piece)
    log.info(
        "pipeline.exported",
        user_id=user_id,
        rows=state.rows,
        bytes=size,
        seconds=round(time.monotonic() - begun, 3),
        replaced_characters=row_counts.replaced_characters,
    )


def _encoder(asked: _ParsedQuery, now: datetime, total: int) -> Format:
    if asked.format == "csv":
        return registry.make("csv", Dialect(guard=asked.csv_safe, joined=True), CSV_COLUMNS)
    return Envelope(dialect=Dialect(exported_at=responses.zulu_seconds(now)), total=total)


def _compress(pieces: Generator[bytes]) -> Generator[bytes]:
    """Yields the pieces compressed as one gzip member."""
    compressor = isal_zlib.compressobj(_GZIP_LEVEL, isal_zlib.DEFLATED, _GZIP_WINDOW_BITS)
    with contextlib.closing(pieces):
        # Flush the first piece, so that it is sent before the first block is full.
        yield compressor.compress(next(pieces)) + compressor.flush(isal_zlib.Z_SYNC_FLUSH)
        for piece in pieces:
            if packed := compressor.compress(piece):
                yield packed
    yield compressor.flush()


# -- the operation ----------------------------------------------------------------------------


def _parameter(name: str, text: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "description": text, "schema": schema}


def _enum_list(known: Sequence[str]) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "string", "enum": list(known)}}


_PARAMETERS = (
    _parameter(
        "format",
        "The format of the file.",
        {"type": "string", "enum": list(FORMATS), "default": "json"},
    ),
    _parameter(
        "from", "Only jobs created at or after this date (UTC) or time.", bounds.DAY_OR_MOMENT
    ),
    _parameter("to", "Only jobs created before this date (UTC) or time.", bounds.DAY_OR_MOMENT),
    _parameter("status", "Only jobs with this status; may be repeated.", _enum_list(STATUSES)),
    _parameter("source", "Only jobs from this source; may be repeated.", _enum_list(SOURCES)),
    _parameter(
        "csv_safe",
        "`true`: put an apostrophe before CSV text that a spreadsheet would run as a formula.",
        {"type": "boolean", "default": False},
    ),
    _parameter(
        "webhook_url",
        f"With `Prefer: respond-async`: {webhook_fields.WEBHOOK_URL_DESCRIPTION}",
        {"type": "string"},
    ),
    _parameter(
        "webhook_events",
        "An event to send; may be repeated. Default: all but `export.progress`.",
        _enum_list(events.EXPORT_EVENTS),
    ),
    {
        "name": "Prefer",
        "in": "header",
        "required": False,
        "description": "`respond-async`: the response is 202 at once, with an export to poll.",
        "schema": {"type": "string"},
    },
)

_CSV = {"schema": {"type": "string"}}

OPERATIONS = (
    Operation(
        "GET /api/export",
        export,
        "exportRows",
        "Export the caller's jobs",
        {
            200: Answer(
                "The file, compressed if the request has `Accept-Encoding: gzip`.",
                Jobs,
                _EXAMPLE,
                (headers.CONTENT_DISPOSITION,),
                {"text/csv": _CSV},
            ),
            202: Answer(
                "A queued export of the same jobs. Poll it at the URL in Location.",
                views.Export,
                _QUEUED_EXAMPLE,
                (
                    headers.LOCATION,
                    headers.RETRY_AFTER,
                    Header("Preference-Applied", "`respond-async`."),
                ),
            ),
        },
        (400, 402, 429, 505),
        parameters=_PARAMETERS,
        limit_headers=(
            headers.RATE_LIMIT,
            headers.RATE_REMAINING,
            Header(
                "X-RateLimit-Reset",
                "Time at which more requests are allowed, in milliseconds since 1970.",
                headers.NUMBER,
            ),
        ),
    ),
)
