"""Parts of answers that all surfaces share: files, timestamps, pages of lists, Retry-After."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import urlencode

import msgspec
import structlog
from anyio import to_thread
from fastapi import Query, Request
from starlette.background import BackgroundTask
from starlette.responses import Response

from exporter.api import auth, errors, refusal
from exporter.api.state import run, service_of, show_call
from exporter.contracts import timestamps
from exporter.core import limits
from exporter.core.exports import Completeness, Export, Phase, State
from exporter.errors import ExporterError, problem
from exporter.service.exports import ExportService
from exporter.store.base import RecordPage
from exporter.store.filters import NO_FILTERS, Filters
from exporter.store.redis.calls import both

MAX_LISTED_QUERY_BYTES = limits.LISTED_QUERY_BYTES.default
MAX_PAGE_SIZE = limits.PAGE_SIZE.default
"""Largest number of entries on a page of a list."""
MAX_PURGE_THREADS = 2
"""Most threads that remove files of deleted exports, and so the most that block while S3 hangs."""
MIN_POLL_SECONDS, MAX_POLL_SECONDS = 2, 30
"""Bounds of the Retry-After header of an export that has not ended."""

log: structlog.stdlib.BoundLogger = structlog.get_logger()
Moment = Callable[[datetime], str]


zulu = timestamps.sortable


def naive(moment: datetime) -> str:
    """Returns the time in UTC, without a zone and with six fractional digits, as Hirebase does.

    >>> naive(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    '2026-01-02T03:04:05.000000'
    """
    return zulu(moment)[:-1]


def zulu_or_none(moment: datetime | None) -> str | None:
    """Returns `zulu(moment)`, or None if the moment is None."""
    return zulu(moment) if moment else None


def zulu_seconds(moment: datetime) -> str:
    """Returns the time as RFC 3339 in UTC, to the second.

    >>> zulu_seconds(datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC))
    '2026-01-02T03:04:05Z'
    """
    return moment.astimezone(UTC).isoformat(timespec="seconds").removesuffix("+00:00") + "Z"


class File(msgspec.Struct):
    """The file of a finished export and the proof that the file is complete."""

    download_url: Annotated[
        str | None,
        msgspec.Meta(
            description="Works with a plain GET until `expiry_time`; signed anew at each poll."
            " null after the file was deleted, and for keys without the scope `read`."
        ),
    ]
    file_size: Annotated[int, msgspec.Meta(description="Bytes.")]
    record_count: int
    expiry_time: Annotated[
        str | None,
        msgspec.Meta(
            description="When `download_url` expires; in the past if the file is deleted."
        ),
    ]
    file_name: str
    completeness: Completeness
    pages: Annotated[int, msgspec.Meta(description="Pages read from the source.")]
    guarded_cells: Annotated[
        int, msgspec.Meta(description="Cells that got a leading apostrophe because of `csv_safe`.")
    ]
    replaced_characters: Annotated[
        int, msgspec.Meta(description="Characters that UTF-8 cannot encode, written as U+FFFD.")
    ]
    unmapped_fields: Annotated[
        dict[str, int],
        msgspec.Meta(description="Fields that have no column, each with its number of rows."),
    ]
    nulled_numbers: Annotated[
        int, msgspec.Meta(description="NaN and infinities, written as null in JSON files.")
    ]
    absent_columns: Annotated[
        list[str],
        msgspec.Meta(description="Requested columns that no row has: empty cells in a CSV file."),
    ]
    converted_rows: Annotated[
        int, msgspec.Meta(description="Rows that the source sent in another encoding than UTF-8.")
    ]


def file(service: ExportService, export: Export, moment: Moment, *, with_link: bool) -> File | None:
    """Returns the file of an export, with a newly signed URL; None unless the export is finished.

    `moment` converts the expiry time to text. `with_link` is False for a caller without the scope
    `read`, who must not get a URL. After its retention the file is still described, without a URL
    and with the time of its expiry, so that a client learns why there is nothing to download.
    """
    result = export.result
    if result is None:
        return None
    link = service.link(export) if with_link else None
    url, dies = link or (None, export.file_expires_at)
    return File(
        download_url=url,
        file_size=result.file_size,
        record_count=result.record_count,
        expiry_time=moment(dies) if dies else None,
        file_name=export.spec.file_name,
        completeness=result.completeness,
        pages=result.pages,
        guarded_cells=result.row_counts.guarded_cells,
        replaced_characters=result.row_counts.replaced_characters,
        unmapped_fields=result.row_counts.unmapped_fields,
        nulled_numbers=result.row_counts.nulled_numbers,
        absent_columns=(result.row_counts.absent_columns or []) if result.record_count else [],
        converted_rows=result.row_counts.converted_rows,
    )


class Deleted(msgspec.Struct):
    """The id of an export that was deleted, and the state that the export had before."""

    id: str
    state: Annotated[
        State,
        msgspec.Meta(
            description="`processing`: its files are removed after the worker has stopped."
        ),
    ]


DELETED_EXAMPLE = {"id": "0b8c2c4e-6a57-4a2b-9a50-0e6a3a2f6b11", "state": "finished"}


def canceled(request: Request, user_id: str | None, export_id: str) -> Export:
    """Cancels the user's export (None: of any user), at once if it is queued, and returns it.

    Raises Refusal 404 if the user has no such export.
    """
    by = auth.caller(request).id
    export = service_of(request).cancel(user_id, export_id, by=by)
    if export is None:
        raise errors.missing(export_id)
    log.info(
        "export.cancel_requested",
        export_id=export.id,
        user_id=export.user_id,
        by=by,
        state=export.state,
    )
    return export


def deleted(request: Request, user_id: str | None, export_id: str) -> Response:
    """Deletes the user's export and returns a 202 answer; its file is removed afterwards.

    `user_id` is None for the export of any user. If S3 does not answer after the answer was sent,
    or a worker still processes the export, the next cleanup removes the file. Raises Refusal 404 if
    the user has no such export.
    """
    service = service_of(request)
    by = auth.caller(request).id
    state = service.delete(user_id, export_id)
    if state is None:
        raise errors.missing(export_id)
    log.info("export.deleted", export_id=export_id, user_id=user_id, by=by, state=state)

    def purge() -> None:
        try:
            service.purge(export_id)
        except ExporterError as error:
            log.warning("export.purge_postponed", export_id=export_id, reason=str(error))

    async def later() -> None:
        await to_thread.run_sync(purge, limiter=request.app.state.purgers)

    answer = reply(Deleted(export_id, state), 202)
    if state is not State.PROCESSING:
        answer.background = BackgroundTask(later)
    return answer


def retry_after_header(export: Export, now: datetime) -> dict[str, str]:
    """Returns the Retry-After header for polls of an export; no header if the export has ended."""
    if export.terminal:
        return {}
    remaining = (retry_in_seconds(export, now) or 0) + 1
    return {"Retry-After": str(max(MIN_POLL_SECONDS, min(MAX_POLL_SECONDS, remaining)))}


def retry_in_seconds(export: Export, now: datetime) -> int | None:
    """Returns the seconds until a waiting export continues; None for an export that does not wait.

    A caller needs no exact clock to show them.
    """
    if export.phase is not Phase.WAITING or export.retry_at is None:
        return None
    return max(0, int((export.retry_at - now).total_seconds()))


async def find_export(request: Request, export_id: str, *, by_operator: bool = False) -> Export:
    """Returns the export with this id if it belongs to the caller, on any contract.

    With `by_operator`, a key with the scope `operator` finds the exports of all users. Raises
    Refusal 401 or 403 if the caller's API key is missing, wrong or without the scope `read`, and
    Refusal 404 if the caller has no such export.
    """
    # In one round trip: it is most of what a poll costs.
    caller, export = await run(
        request, both(auth.reader_call(request), show_call(request, export_id))
    )
    owner = auth.owner(caller) if by_operator else caller.user_id
    if export is None or owner not in (None, export.user_id):
        raise errors.missing(export_id)
    return export


def reply(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Returns a response with the content as JSON, which no cache may store.

    The content may have a link or a secret.
    """
    return Response(
        msgspec.json.encode(content),
        status,
        {"Cache-Control": "no-store", **(headers or {})},
        "application/json",
    )


def address(service: ExportService, path: str) -> str:
    """Returns the public URL of a path of this API."""
    return service.settings.public_url.rstrip("/") + path


Limit = Annotated[
    int,
    Query(
        ge=1, description=f"Entries per page; a value over {MAX_PAGE_SIZE} means {MAX_PAGE_SIZE}."
    ),
]
Cursor = Annotated[
    str | None, Query(max_length=1_000, description="The `next_cursor` of the previous page.")
]


def listed_query(query: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the query of an export in a list; None for a long one, which the export shows."""
    return query if len(msgspec.json.encode(query)) <= MAX_LISTED_QUERY_BYTES else None


def records(
    service: ExportService,
    user_id: str | None,
    limit: int,
    cursor: str | None,
    filters: Filters = NO_FILTERS,
) -> RecordPage:
    """Returns a page of a user's exports (None: of all users) with at most `MAX_PAGE_SIZE` entries.

    Raises Refusal 422 for an invalid cursor, and for one of a list with other filters.
    """
    size = min(limit, MAX_PAGE_SIZE)
    try:
        return service.store.list(user_id, limit=size, cursor=cursor, filters=filters)
    except ValueError:
        raise wrong_cursor() from None


def wrong_cursor() -> refusal.Refusal:
    """Returns the 422 refusal of an invalid cursor."""
    message = (
        "not a cursor of this list: send the next_cursor of the previous page with the same"
        " filters, or no cursor"
    )
    return errors.invalid([problem(("query", "cursor"), message)])


def next_link(
    service: ExportService,
    path: str,
    limit: int,
    cursor: str | None,
    given: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Returns the Link header with the URL of the next page; no header on the last page.

    `given` are the further parameters of the request.
    """
    if cursor is None:
        return {}
    query = urlencode({**(given or {}), "limit": min(limit, MAX_PAGE_SIZE), "cursor": cursor})
    return {"Link": f'<{address(service, path)}?{query}>; rel="next"'}
