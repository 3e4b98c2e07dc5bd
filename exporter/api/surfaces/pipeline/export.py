"""The pipeline contract: the caller's own jobs as one file in the response itself.

The filters, the compression, `Prefer: respond-async` and the status 505 are our additions. The
contract plans filters and compression, but has no way to request a large file now and fetch it
later. Deleted jobs (`deleted_at` is set) are left out; the contract does not mention them.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Generator
from datetime import datetime

import msgspec
import structlog
from anyio import to_thread
from fastapi import Request
from isal import isal_zlib
from starlette.responses import Response

from exporter.api import auth, deeds, headers, responses
from exporter.api.edge import is_head
from exporter.api.files.streams import Stream
from exporter.api.refusal import Refusal
from exporter.api.state import limits_of, service_of
from exporter.api.surface import Answer, Header, Operation
from exporter.api.surfaces.native import views
from exporter.api.surfaces.pipeline import query
from exporter.contracts.pipeline import COLUMNS
from exporter.core.buffers import Buffer
from exporter.core.checkpoints import RowCounts
from exporter.core.exports import Dialect
from exporter.core.limits import CREATE_RATE, PIPELINE_RATE
from exporter.errors import (
    QueryError,
    SourceError,
)
from exporter.formats import registry
from exporter.formats.base import Format, State
from exporter.formats.envelope import Envelope
from exporter.service.drafts import NewExport
from exporter.service.exports import ExportService
from exporter.sources.sql.source import Snapshot
from exporter.store.redis.api_keys import ApiKey
from exporter.store.redis.rate_limits import Window

log: structlog.stdlib.BoundLogger = structlog.get_logger()

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


def _respond(request: Request) -> Response:
    caller, service = auth.reader(request), service_of(request)
    _count_request(request, caller, service)
    # A HEAD must change nothing, so it creates no export.
    later = _prefers_async(request) and not is_head(request)
    now = service.clock.now()
    asked = query.parse(request, caller.user_id, later, now)
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
    source = query.source_of(service)
    found = source.search(asked.filters, now, user_id=caller.user_id).query
    columns = query.CSV_COLUMNS if asked.format == "csv" else COLUMNS
    snapshot = source.snapshot(found, columns)
    gzip = _accepts_gzip(request.headers.get("accept-encoding", ""))
    headers = {
        "Content-Type": registry.FORMATS[query.FORMATS[asked.format]].media_type,
        "Content-Disposition": f'attachment; filename="{query.file_name(asked, now)}"',
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


def _prefers_async(request: Request) -> bool:
    preferences = ",".join(request.headers.getlist("prefer")).split(",")
    return any(one.partition(";")[0].strip().lower() == "respond-async" for one in preferences)


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


# -- the response -----------------------------------------------------------------------------


def _create_export(
    request: Request, service: ExportService, asked: query.ParsedQuery, now: datetime
) -> Response:
    """Creates an export of the same jobs, which a worker writes later; returns the response 202."""
    caller = deeds.writer(request, CREATE_RATE)
    new = NewExport(
        user_id=caller.user_id,
        surface="pipeline",
        source=service.config.surfaces.pipeline,
        search=asked.filters,
        format=query.FORMATS[asked.format],
        columns=query.CSV_COLUMNS if asked.format == "csv" else COLUMNS,
        dialect=Dialect(guard=asked.csv_safe, joined=True, exported_at=responses.zulu_seconds(now)),
        file_name=query.file_name(asked, now),
    )
    try:
        created = service.create(new, caller.plan, webhook=asked.hook.record)
    except QueryError as error:
        raise query.invalid(
            [{**one, "loc": ("query", *one["loc"][1:])} for one in error.problems]
        ) from None
    headers = {
        "Location": responses.address(service, f"/v1/exports/{created.id}"),
        "Preference-Applied": "respond-async",
        **responses.retry_after_header(created, now),
    }
    return responses.reply(views.view(service, created, with_link=caller.may_read), 202, headers)


def _file_pieces(
    snapshot: Snapshot, asked: query.ParsedQuery, now: datetime, user_id: str
) -> Generator[bytes]:
    """Yields the bytes of the file in pieces; the first piece is ready when the jobs are counted.

    Raises Refusal 500 if the database fails before the first piece, and SourceError if it fails
    later.
    """
    begun, row_counts, state, size = time.monotonic(), RowCounts(), State(), 0
    started = False
    piece = Buffer()
    try:
        with snapshot:
            encoder = _encoder(asked, now, snapshot.total)
            started = True
            encoder.open(state, piece)
            yield bytes(piece)
            for rows in snapshot.pages():
                piece.truncate(0)
                encoder.encode(rows, row_counts, state, piece)
                state.rows += len(rows)
                size += len(piece)
                yield bytes(piece)
    except SourceError as error:
        log.warning("pipeline.failed", user_id=user_id, rows=state.rows, reason=str(error))
        if started:
            raise
        raise Refusal(500, "internal", "the database did not return the jobs: try again") from None
    piece.truncate(0)
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


def _encoder(asked: query.ParsedQuery, now: datetime, total: int) -> Format:
    if asked.format == "csv":
        return registry.make("csv", Dialect(guard=asked.csv_safe, joined=True), query.CSV_COLUMNS)
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
        parameters=query.PARAMETERS,
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
