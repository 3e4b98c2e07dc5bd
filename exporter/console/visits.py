"""A visit: one request of a signed-in browser, with what a page needs to answer it."""

from __future__ import annotations

import hashlib
import secrets
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, quote, urlsplit

import jinja2
import msgspec
import structlog
from anyio import to_thread
from fastapi import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from exporter.api import errors
from exporter.api.state import keys_of, service_of
from exporter.console import operations, texts
from exporter.console.operations import Result
from exporter.console.search_form import Form
from exporter.console.sessions import Session, Sessions
from exporter.store.redis.api_keys import ApiKey
from exporter.store.redis.keys import KeyNames

log: structlog.stdlib.BoundLogger = structlog.get_logger()

COOKIE = "exporter_session"
MAX_FORM_BYTES = 256 * 1024
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
        " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    # Kept for Back, which otherwise asks whether to send a form again; cleared by signing out.
    "Cache-Control": "private, no-cache",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
"""Headers of each page."""
NOTICES: Mapping[str, str] = {
    "canceled": "The export was asked to stop.",
    "canceled-many": "{exports} asked to stop.",
    "deleted": "It was deleted.",
    "retried": "A new export was created from the same request.",
    "retried-many": "{exports} created, from the same requests.",
    "test": "A test webhook is on its way.",
    "redelivered": "The delivery is sent again.",
    "recovered": "The failed deliveries are sent again.",
    "enabled": "The endpoint is enabled.",
    "disabled": "The endpoint is disabled.",
    "changed": "The plan of the key was changed.",
    "revoked": "The key was revoked.",
}
"""Texts about the act before a redirect, by the value of `?notice=`; `?n=` counts exports."""

_HERE = Path(__file__).parent
STATIC: Mapping[str, bytes] = {
    file.name: file.read_bytes() for file in sorted((_HERE / "static").iterdir())
}


def asset(name: str) -> str:
    """Returns the address of a static file, which changes with its content."""
    return f"/static/{name}?{hashlib.sha256(STATIC[name]).hexdigest()[:12]}"


_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_HERE / "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.globals |= {"asset": asset}
_ENVIRONMENT.filters |= {
    one.__name__: one
    for one in (
        *(texts.duration, texts.whole, texts.size, texts.number, texts.plural, texts.words),
        *(texts.pretty, texts.summary, texts.now_doing),
    )
}


def render(template: str, status: int = 200, **context: Any) -> Response:
    """Returns the page made from a template of the folder `templates`.

    A page that shows a secret is kept in no cache.
    """
    now = datetime.now(UTC)
    text = _ENVIRONMENT.get_template(template).render(
        **context, ago=lambda moment: texts.ago(moment, now)
    )
    headers = {**HEADERS, "Cache-Control": "no-store"} if context.get("secret") else HEADERS
    return Response(text, status, headers, "text/html")


class Visit:
    """A request of a signed-in browser."""

    def __init__(self, request: Request, session: Session, key: ApiKey, form: Form) -> None:
        self.request = request
        self.session = session
        self.key = key
        self.form = form
        """The fields of a POST; those of the query string of a GET."""

    @property
    def may_read(self) -> bool:
        return "read" in self.key.scopes

    @property
    def may_write(self) -> bool:
        return "write" in self.key.scopes

    @property
    def is_operator(self) -> bool:
        return "operator" in self.key.scopes

    @property
    def public_url(self) -> str:
        return service_of(self.request).settings.public_url.rstrip("/")

    def field(self, name: str, default: str = "") -> str:
        """Returns the value of a field, without surrounding spaces."""
        values = self.form.get(name, ())
        return values[0].strip() if values else default

    async def call(self, handler: Callable[..., Any], *arguments: Any, **options: Any) -> Result:
        """Calls an operation of the API with the key of the session; see `operations.call`."""
        return await operations.call(self.request, self.key, handler, *arguments, **options)

    def page(self, template: str, status: int = 200, **context: Any) -> Response:
        """Returns a page for the session."""
        return render(
            template,
            status,
            visit=self,
            path=self.request.scope["path"],
            notice=_notice(self.request.query_params),
            **context,
        )

    def failed(self, result: Result) -> Response:
        """Returns the page of an operation that was refused."""
        return self.page(
            "error.html",
            result.status,
            title=HTTPStatus(result.status).phrase,
            detail=result.detail or "The service could not do this.",
        )

    def go(self, path: str, notice: str = "") -> Response:
        """Returns the answer that leads to another page after an act."""
        target = f"{path}{'&' if '?' in path else '?'}notice={notice}" if notice else path
        return RedirectResponse(target, HTTPStatus.SEE_OTHER, HEADERS)


def _notice(query: Mapping[str, str]) -> str:
    count = query.get("n", "")
    found = int(count) if count.isascii() and count.isdigit() and len(count) < 7 else 0
    named = f"{texts.plural(found, 'export')} {'was' if found == 1 else 'were'}"
    return NOTICES.get(query.get("notice", ""), "").format(exports=named)


Page = Callable[[Visit], Awaitable[Response]]


def sessions_of(request: Request) -> Sessions:
    """Returns the sessions of the request's app."""
    names = KeyNames(service_of(request).settings.redis_prefix)
    return Sessions(keys_of(request).client, names)


def route(
    path: str, page: Page, methods: Sequence[str] = ("GET",), *, scope: str = "write"
) -> Route:
    """Returns the route of a page, which only signed-in browsers reach.

    A POST needs the session's CSRF token and a key with the given scope; empty: any key.
    """

    async def endpoint(request: Request) -> Response:
        try:
            visit = await _visit(request, scope)
            if isinstance(visit, Response):
                return visit
            return await page(visit)
        except Exception as error:  # noqa: BLE001 - a browser needs a page, whatever happens
            return await _failure(request, error)

    return Route(path, endpoint, methods=list(methods))


async def _failure(request: Request, error: Exception) -> Response:
    """Returns the page of an error; the log has the reason of an unexpected one."""
    try:
        answer = await errors.handle(request, error)
        status = answer.status_code
        detail = str(msgspec.json.decode(bytes(answer.body)).get("detail", ""))
    except Exception:  # noqa: BLE001 - no expected error
        # Formatted here: structlog's pretty tracebacks print local variables, including keys.
        trace = "".join(traceback.format_exception(error))
        log.error("console.unexpected", path=request.scope["path"], traceback=trace)  # noqa: TRY400
        status, detail = 500, "The service failed at this page. Its log has the reason."
    return render(
        "alone.html",
        status,
        title=HTTPStatus(status).phrase,
        detail=detail,
        request_id=request.state.request_id,
    )


async def read_form(request: Request) -> Form:
    """Returns the fields of a form; raises ValueError above MAX_FORM_BYTES."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_FORM_BYTES:
            raise ValueError(f"the form has more than {MAX_FORM_BYTES:,} bytes: send less")
    return parse_qs(body.decode(errors="replace"), keep_blank_values=True, max_num_fields=5_000)


def is_from_here(request: Request) -> bool:
    """True unless the browser says that another site sent the request."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("host")


def _address(request: Request) -> str:
    """Returns the path and query of a GET, or of the page whose form was sent."""
    url = urlsplit(
        request.headers.get("referer", "/") if request.method == "POST" else str(request.url)
    )
    return f"{url.path}?{url.query}" if url.query else url.path


async def _visit(request: Request, scope: str) -> Visit | Response:
    token = request.cookies.get(COOKIE, "")
    session = await to_thread.run_sync(sessions_of(request).find, token) if token else None
    key = None
    if session is not None:
        key = await to_thread.run_sync(keys_of(request).find_by_id, session.key_id)
    if session is None or key is None:
        ended = "&ended=1" if token else ""
        path = f"/sign-in?next={quote(_address(request))}{ended}"
        return RedirectResponse(path, HTTPStatus.SEE_OTHER, HEADERS)
    if request.method != "POST":
        query = cast("str", request.scope["query_string"].decode(errors="replace"))
        return Visit(request, session, key, parse_qs(query, keep_blank_values=True))
    try:
        form = await read_form(request)
    except ValueError as error:
        return render("alone.html", 413, title="Too large", detail=str(error))
    visit = Visit(request, session, key, form)
    if not secrets.compare_digest(visit.field("csrf").encode(), session.csrf.encode()):
        text = (
            "The form is from another session or page. Nothing was changed: go back, load it again."
        )
        return visit.page("error.html", 403, title="Form refused", detail=text)
    if scope and scope not in visit.key.scopes:
        text = f"Your key lacks the scope {scope}. Sign in with another key."
        return visit.page("error.html", 403, title="Not allowed", detail=text)
    return visit
