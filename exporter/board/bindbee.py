"""The board as a Bindbee ATS: jobs by cursor, for whoever also has a connector token."""

from __future__ import annotations

import base64
import binascii
import hmac
import math
import time
import uuid
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from typing import Annotated, NamedTuple

from fastapi import APIRouter, Depends, Header, Query, Response
from fastapi.exceptions import HTTPException, RequestValidationError
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from exporter.board import answers, bindbee_jobs, names, results
from exporter.board.bindbee_jobs import Wanted
from exporter.board.postings import key
from exporter.board.search import Condition, all_of

PREFIX = "/api/ats/v1/"
RATE = 200
"""Requests a minute that one connector token has."""
MOST = 200
"""Jobs a page."""
_MINUTE = 60.0
_STATUSES = {"OPEN": "NOT expired", "CLOSED": "expired"}


def router(pages: results.Results, connector_tokens: Collection[str]) -> APIRouter:
    """`GET /api/ats/v1/jobs` and `GET /api/ats/v1/jobs/{id}`, as the vendor documents them.

    Jobs come in the order of their ids, which are stable, so whatever changes during a walk, no
    job comes twice and none that is there all the time is missed. The vendor promises no order and
    no lifetime of cursors; here they last for ever. Filters are compared whole; `code` is the
    posting's `job_slug`, in any case. `modified_after` excludes that very moment.
    """
    tokens = [token.encode() for token in connector_tokens]

    async def let_in(
        x_connector_token: Annotated[str, Header()],
        authorization: Annotated[str, Header()] = "",
    ) -> None:
        if authorization.partition(" ")[0].casefold() != "bearer":
            raise HTTPException(401, "Not authenticated", headers={"WWW-Authenticate": "Bearer"})
        if not _known(x_connector_token, tokens):
            raise HTTPException(403, "The connector token does not permit access to this resource")

    routes = APIRouter(prefix=PREFIX.rstrip("/"), dependencies=[Depends(let_in)])

    @routes.get("/jobs")
    def jobs(
        wanted: Annotated[Wanted, Depends(_wanted)],
        ids: str | None = None,
        remote_id: str | None = None,
        code: str | None = None,
        status: str | None = None,
        offices: str | None = None,
        modified_after: datetime | None = None,
        page_size: Annotated[int, Query(ge=1, le=MOST)] = 50,
        cursor: str | None = None,
    ) -> Response:
        conditions = [Condition("uuid > ?", (_place(cursor),))] if cursor is not None else []
        if ids is not None:
            conditions.append(_one_of("uuid", _uuids("ids", ids)))
        if remote_id is not None:
            conditions.append(_one_of("uuid", [_job(remote_id)]))
        if offices is not None:
            one = _one_of("office", _uuids("offices", offices))
            chosen = f"number IN (SELECT number FROM offices WHERE {one.sql})"  # noqa: S608
            conditions.append(Condition(chosen, one.values))
        if status is not None:
            conditions.append(
                Condition({"OPEN": "NOT expired", "CLOSED": "expired"}.get(status, "0"))
            )
        with pages.state() as connection:
            if code is not None:
                rows = connection.execute(
                    "SELECT id FROM postings WHERE job_slug = ?", (key(code),)
                )
                conditions.append(_one_of("uuid", [_job(identity) for (identity,) in rows]))
            if modified_after is not None:
                since = _instant(modified_after)
                (first,) = connection.execute(
                    "SELECT min(number) FROM moments WHERE at > ?", (since,)
                ).fetchone()
                changed = Condition("0") if first is None else Condition("number >= ?", (first,))
                conditions.append(changed)
            found = bindbee_jobs.find(connection, all_of(conditions), page_size + 1)
            page = found[:page_size]
            items = bindbee_jobs.listings(connection, page, wanted)
        following = _cursor(page[-1].uuid) if len(found) > page_size else "null"
        head = f'{{"cursor":{following},"page_size":{len(items)},"items":['.encode()
        return answers.reply(head + b",".join(items) + b"]}")

    @routes.get("/jobs/{identity}")
    def job(identity: uuid.UUID, wanted: Annotated[Wanted, Depends(_wanted)]) -> Response:
        with pages.state() as connection:
            found = bindbee_jobs.find(connection, _one_of("uuid", [identity.bytes]), 1)
            items = bindbee_jobs.listings(connection, found, wanted)
        if not items:
            raise HTTPException(404, "Job not found")
        return answers.reply(items[0])

    return routes


def refusal(status: int) -> Response:
    """What a request gets that did not come as far as the routes: 401 without a key, else 500."""
    if status != 401:
        return answers.detail(status, "Internal server error")
    answer = answers.detail(401, "Not authenticated")
    answer.headers["WWW-Authenticate"] = "Bearer"
    return answer


class Meter:
    """Counts the requests of each connector token by the minute, tells on each answer how many
    are left, and refuses those beyond. Whoever sends no token that exists shares one account."""

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
        account = token if _known(token, self._tokens) else ""
        now = self._now()
        window = self._windows.get(account)
        if window is None or window.resets_at <= now:
            window = _Window(now + _MINUTE, 0)
        window = self._windows[account] = window._replace(used=window.used + 1)

        async def metered(message: Message) -> None:
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
            await self._app(scope, receive, metered)
            return
        answer = answers.detail(429, "Rate limit exceeded")
        answer.headers["Retry-After"] = str(max(math.ceil(window.resets_at - now), 1))
        answer.headers["X-Request-Id"] = uuid.uuid4().hex
        await answer(scope, receive, metered)


class _Window(NamedTuple):
    resets_at: float
    used: int


def _known(token: str, tokens: Sequence[bytes]) -> bool:
    known = False
    for one in tokens:  # all of them, as with the keys
        known |= hmac.compare_digest(token.encode(), one)
    return known


async def _wanted(
    expand: str | None = None,
    include_raw_data: bool = False,
    include_custom_fields: bool = False,
) -> Wanted:
    try:
        relations = bindbee_jobs.expanded(expand) if expand is not None else {}
    except ValueError as error:
        raise _wrong("expand", str(error)) from None
    return Wanted(relations, include_raw_data, include_custom_fields)


def _wrong(name: str, message: str, kind: str = "value_error") -> RequestValidationError:
    return RequestValidationError([{"loc": ("query", name), "msg": message, "type": kind}])


def _uuids(name: str, listed: str) -> list[bytes]:
    try:
        return [uuid.UUID(one).bytes for one in listed.split(",")]
    except ValueError:
        message = "Input should be UUIDs, separated by commas without spaces"
        raise _wrong(name, message, "uuid_parsing") from None


def _job(identity: str) -> bytes:
    return names.uuid_of("job", identity.encode(errors="replace").decode())


def _one_of(column: str, values: Sequence[bytes]) -> Condition:
    marks = ", ".join("?" * len(values))
    return Condition(f"{column} IN ({marks})", tuple(values))


def _instant(moment: datetime) -> str:
    try:
        return names.instant(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except OverflowError:
        raise _wrong("modified_after", "Input should be a moment of the years 1 to 9999") from None


def _cursor(last: bytes) -> str:
    return f'"{base64.b64encode(names.written(last).encode()).decode()}"'


def _place(cursor: str) -> bytes:
    """The id behind which a cursor goes on."""
    try:
        return uuid.UUID(base64.b64decode(cursor, validate=True).decode()).bytes
    except (binascii.Error, ValueError):
        raise _wrong("cursor", "Input should be a cursor of an earlier page") from None
