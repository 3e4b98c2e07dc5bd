"""Bindbee ATS API of the board: jobs by cursor, protected by a key and a connector token."""

from __future__ import annotations

import base64
import binascii
import hmac
import math
import time
import uuid
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Annotated, NamedTuple

from fastapi import APIRouter, Depends, Header, Query, Response
from fastapi.exceptions import HTTPException, RequestValidationError
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from exporter.board import answers, bindbee_jobs, names, results
from exporter.board.bindbee_jobs import RequestedFields
from exporter.board.postings import key
from exporter.board.search import Condition, all_of
from exporter.contracts import timestamps

PREFIX = "/api/ats/v1/"
MAX_REQUESTS_PER_MINUTE = 200
"""Maximum requests per minute for one connector token, as the vendor limits them."""
MAX_PAGE_SIZE = 200
"""Maximum jobs per page."""
_WINDOW_SECONDS = 60.0
_STATUSES = {"OPEN": "NOT expired", "CLOSED": "expired"}


def router(  # noqa: C901 - one nested function an endpoint
    pages: results.Results, connector_tokens: Collection[str]
) -> APIRouter:
    """Returns the routes `GET /api/ats/v1/jobs` and `GET /api/ats/v1/jobs/{id}` of the vendor.

    Jobs are ordered by their stable ids (keyset pagination): even if postings change while a client
    reads all pages, no job is returned twice, and a job that exists all the time is never missed.
    The vendor guarantees neither an order nor a lifetime of cursors; here a cursor never expires.
    Filters match exact values, except `code`, which is the posting's `job_slug` in any case.
    `modified_after` excludes the given time itself.
    """
    tokens = [token.encode() for token in connector_tokens]

    async def authenticate(
        x_connector_token: Annotated[str, Header()],
        authorization: Annotated[str, Header()] = "",
    ) -> None:
        if authorization.partition(" ")[0].casefold() != "bearer":
            raise HTTPException(401, "Not authenticated", headers={"WWW-Authenticate": "Bearer"})
        if not _is_known(x_connector_token, tokens):
            raise HTTPException(403, "The connector token does not permit access to this resource")

    routes = APIRouter(prefix=PREFIX.rstrip("/"), dependencies=[Depends(authenticate)])

    @routes.get("/jobs")
    def jobs(  # noqa: PLR0913 - one parameter a query parameter
        wanted: Annotated[RequestedFields, Depends(_requested_fields)],
        ids: str | None = None,
        remote_id: str | None = None,
        code: str | None = None,
        status: str | None = None,
        offices: str | None = None,
        modified_after: datetime | None = None,
        page_size: Annotated[int, Query(ge=1, le=MAX_PAGE_SIZE)] = 50,
        cursor: str | None = None,
    ) -> Response:
        conditions = (
            [Condition("uuid > ?", (_decode_cursor(cursor),))] if cursor is not None else []
        )
        if ids is not None:
            conditions.append(_one_of("uuid", _parse_uuids("ids", ids)))
        if remote_id is not None:
            conditions.append(_one_of("uuid", [_job_uuid(remote_id)]))
        if offices is not None:
            one = _one_of("office", _parse_uuids("offices", offices))
            chosen = f"number IN (SELECT number FROM offices WHERE {one.sql})"  # noqa: S608
            conditions.append(Condition(chosen, one.values))
        if status is not None:
            conditions.append(Condition(_STATUSES.get(status, "0")))
        with pages.snapshot() as connection:
            if code is not None:
                rows = connection.execute(
                    "SELECT id FROM postings WHERE job_slug = ?", (key(code),)
                )
                conditions.append(_one_of("uuid", [_job_uuid(identity) for (identity,) in rows]))
            if modified_after is not None:
                since = _format_instant(modified_after)
                (first,) = connection.execute(
                    "SELECT min(number) FROM moments WHERE at > ?", (since,)
                ).fetchone()
                changed = Condition("0") if first is None else Condition("number >= ?", (first,))
                conditions.append(changed)
            found = bindbee_jobs.find(connection, all_of(conditions), page_size + 1)
            page = found[:page_size]
            items = bindbee_jobs.job_objects(connection, page, wanted)
        following = _encode_cursor(page[-1].uuid) if len(found) > page_size else "null"
        head = f'{{"cursor":{following},"page_size":{len(items)},"items":['.encode()
        return answers.json_response(head + b",".join(items) + b"]}")

    @routes.get("/jobs/{identity}")
    def job(
        identity: uuid.UUID, wanted: Annotated[RequestedFields, Depends(_requested_fields)]
    ) -> Response:
        with pages.snapshot() as connection:
            found = bindbee_jobs.find(connection, _one_of("uuid", [identity.bytes]), 1)
            items = bindbee_jobs.job_objects(connection, found, wanted)
        if not items:
            raise HTTPException(404, "Job not found")
        return answers.json_response(items[0])

    return routes


def error_response(status: int) -> Response:
    """Returns the error response of this contract for 401 (no valid key) or 500 (a crash)."""
    if status != 401:
        return answers.error(status, "Internal server error")
    answer = answers.error(401, "Not authenticated")
    answer.headers["WWW-Authenticate"] = "Bearer"
    return answer


class RateLimiter:
    """Middleware that limits the requests per minute of each connector token.

    Adds the `X-RateLimit-*` headers to each response, and answers requests above the limit with 429
    and `Retry-After`. A window of 60 s starts with a token's first request. All requests without a
    valid token share one counter.
    """

    def __init__(
        self,
        app: ASGIApp,
        connector_tokens: Collection[str],
        rate: int,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._app = app
        self._tokens = [token.encode() for token in connector_tokens]
        self._rate = rate
        self._now = now
        self._windows: dict[str, _Window] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(PREFIX):
            await self._app(scope, receive, send)
            return
        token = Headers(scope=scope).get("x-connector-token", "")
        account = token if _is_known(token, self._tokens) else ""
        now = self._now()
        window = self._windows.get(account)
        if window is None or window.resets_at <= now:
            window = _Window(now + _WINDOW_SECONDS, 0)
        window = self._windows[account] = window._replace(used=window.used + 1)

        async def send_with_limits(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(
                    {
                        "X-RateLimit-Limit": str(self._rate),
                        "X-RateLimit-Remaining": str(max(self._rate - window.used, 0)),
                        "X-RateLimit-Reset": str(math.ceil(window.resets_at)),
                    }
                )
            await send(message)

        if window.used <= self._rate:
            await self._app(scope, receive, send_with_limits)
            return
        answer = answers.error(429, "Rate limit exceeded")
        answer.headers["Retry-After"] = str(max(math.ceil(window.resets_at - now), 1))
        answer.headers["X-Request-Id"] = uuid.uuid4().hex
        await answer(scope, receive, send_with_limits)


class _Window(NamedTuple):
    resets_at: float
    used: int


def _is_known(token: str, tokens: Sequence[bytes]) -> bool:
    known = False
    # Compares with every token, so that the time does not reveal the position of a valid token.
    for one in tokens:
        known |= hmac.compare_digest(token.encode(), one)
    return known


async def _requested_fields(
    expand: str | None = None,
    include_raw_data: bool = False,
    include_custom_fields: bool = False,
) -> RequestedFields:
    try:
        relations = bindbee_jobs.parse_expand(expand) if expand is not None else {}
    except ValueError as error:
        raise _invalid_parameter("expand", str(error)) from None
    return RequestedFields(relations, include_raw_data, include_custom_fields)


def _invalid_parameter(
    name: str, message: str, kind: str = "value_error"
) -> RequestValidationError:
    return RequestValidationError([{"loc": ("query", name), "msg": message, "type": kind}])


def _parse_uuids(name: str, listed: str) -> list[bytes]:
    try:
        return [uuid.UUID(one).bytes for one in listed.split(",")]
    except ValueError:
        message = "Input should be UUIDs, separated by commas without spaces"
        raise _invalid_parameter(name, message, "uuid_parsing") from None


def _job_uuid(identity: str) -> bytes:
    return names.uuid_of("job", identity.encode(errors="replace").decode())


def _one_of(column: str, values: Sequence[bytes]) -> Condition:
    marks = ", ".join("?" * len(values))
    return Condition(f"{column} IN ({marks})", tuple(values))


def _format_instant(moment: datetime) -> str:
    try:
        return timestamps.sortable(timestamps.in_utc(moment))
    except OverflowError:
        raise _invalid_parameter(
            "modified_after", "Input should be a moment of the years 1 to 9999"
        ) from None


def _encode_cursor(last: bytes) -> str:
    return f'"{base64.b64encode(names.format_uuid(last).encode()).decode()}"'


def _decode_cursor(cursor: str) -> bytes:
    """Returns the uuid that a cursor contains: that of the last job of the previous page.

    Raises RequestValidationError, which is answered with 422, if the cursor is malformed.
    """
    try:
        return uuid.UUID(base64.b64decode(cursor, validate=True).decode()).bytes
    except (binascii.Error, ValueError):
        raise _invalid_parameter("cursor", "Input should be a cursor of an earlier page") from None
