"""The routes of the console, for `exporter.api.app.create_app`."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from urllib.parse import urlsplit

from anyio import to_thread
from fastapi import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from exporter.api.state import keys_of, limits_of, service_of
from exporter.console import (
    bulk,
    export_page,
    exports,
    first_rows,
    keys,
    live,
    new_export,
    sources,
    system,
    webhooks,
)
from exporter.console.sessions import SESSION_TTL
from exporter.console.visits import (
    COOKIE,
    HEADERS,
    STATIC,
    Visit,
    is_from_here,
    read_form,
    render,
    route,
    sessions_of,
)
from exporter.core import limits

_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


def pages() -> Sequence[BaseRoute]:
    """Returns the routes of all pages."""
    return (
        Route("/sign-in", sign_in),
        Route("/sign-in", signed_in, methods=["POST"]),
        Route("/static/{name}", static),
        route("/sign-out", sign_out, ["POST"], scope=""),
        *exports.ROUTES,
        *bulk.ROUTES,
        *new_export.ROUTES,
        *live.ROUTES,
        *first_rows.ROUTES,
        *export_page.ROUTES,
        *webhooks.ROUTES,
        *keys.ROUTES,
        *sources.ROUTES,
        *system.ROUTES,
    )


async def static(request: Request) -> Response:
    """Answers with a static file, which browsers keep: its address changes with its content."""
    name = request.path_params["name"]
    if name not in STATIC:
        return render("alone.html", 404, title="Not found", detail="There is no such file.")
    kept = {**HEADERS, "Cache-Control": "public, max-age=31536000, immutable"}
    return Response(STATIC[name], 200, kept, _TYPES[name.rpartition(".")[2]])


async def sign_in(request: Request) -> Response:
    """Shows the form that asks for a key, or that uses the ticket of a one-time link."""
    given = request.query_params
    wrong = (
        "Your session has ended. Sign in again; nothing was changed." if "ended" in given else ""
    )
    return _form(given.get("next", "/"), given.get("ticket", ""), wrong=wrong)


async def signed_in(request: Request) -> Response:
    """Starts a session for a right key or ticket; at most SIGN_IN_RATE tries from one address."""
    if not is_from_here(request):
        return _form("/", "", 403, "Another site sent this form. Sign in here.")
    host = request.client.host if request.client else ""
    rate = limits.SIGN_IN_RATE.default
    name = f"{limits.SIGN_IN_RATE.name}:{host}"
    window = await to_thread.run_sync(limits_of(request).acquire, name, rate)
    if not window.allowed:
        seconds = int(window.retry_after) + 1
        return _form("/", "", 429, f"Too many tries. Wait {seconds} seconds.")
    try:
        form = await read_form(request)
    except ValueError as error:
        return _form("/", "", 413, str(error))
    target = (form.get("next") or ["/"])[0]
    secret = (form.get("key") or [""])[0].strip()
    ticket = (form.get("ticket") or [""])[0]
    key_id = None
    if ticket:
        key_id = await to_thread.run_sync(sessions_of(request).use_ticket, ticket)
        wrong = "This link was used or is too old. Make a new one, or paste an API key."
    else:
        wrong = "This is not a key of this service, or it was revoked."
        key = await to_thread.run_sync(keys_of(request).find, secret) if secret else None
        key_id = None if key is None else key.id
    if key_id is None:
        return _form(target, "", 401, wrong)
    token = await to_thread.run_sync(sessions_of(request).create, key_id)
    path = target if _is_path(target) else "/"
    answer = RedirectResponse(path, HTTPStatus.SEE_OTHER, HEADERS)
    answer.set_cookie(
        COOKIE,
        token,
        max_age=int(SESSION_TTL.total_seconds()),
        httponly=True,
        samesite="strict",
        secure=service_of(request).settings.public_url.startswith("https:"),
    )
    return answer


async def sign_out(visit: Visit) -> Response:
    """Ends the session."""
    token = visit.request.cookies.get(COOKIE, "")
    await to_thread.run_sync(sessions_of(visit.request).end, token)
    answer = visit.go("/sign-in")
    answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
    answer.headers["Clear-Site-Data"] = '"cache"'
    return answer


def _is_path(target: str) -> bool:
    """True if a browser stays on this site when it goes to the target."""
    try:
        split = urlsplit(target)
    except ValueError:
        return False
    is_relative = not split.netloc and not split.scheme and target.startswith("/")
    return is_relative and not target.startswith(("//", "/\\"))


def _form(target: str, ticket: str, status: int = 200, wrong: str = "") -> Response:
    return render("sign_in.html", status, target=target, ticket=ticket, wrong=wrong)
