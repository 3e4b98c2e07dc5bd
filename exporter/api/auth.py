"""Authenticates a request by its API key, which may be sent in one of four forms.

The forms are `Authorization: Bearer KEY`, `Authorization: ApiKey KEY`, `X-API-Key: KEY` and
`apikey: KEY`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from anyio import to_thread
from fastapi import Request

from exporter.api import state
from exporter.api.refusal import Refusal
from exporter.store.redis.api_keys import ApiKey
from exporter.store.redis.calls import Call
from exporter.store.redis.keys import KeyNames
from exporter.store.redis.tickets import Tickets

RawHeaders = Sequence[tuple[bytes, bytes]]
"""The headers of an ASGI request, whose names are in lower case."""
TICKET_TTL = timedelta(seconds=60)
_SCHEMES = ("bearer", "apikey")
_KEY_HEADERS = {b"authorization": "Authorization", b"x-api-key": "X-API-Key", b"apikey": "apikey"}
"""Maps each header that may contain a key, in lower case, to its name in error texts."""
_CHALLENGE = 'Bearer realm="exporter"'

SCHEMES = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "`Authorization: Bearer KEY`, or `Authorization: ApiKey KEY`.",
    },
    "header": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "`X-API-Key: KEY`, or `apikey: KEY`.",
    },
}
"""Security schemes of the OpenAPI document; a request needs only one of them."""


async def identify(request: Request) -> None:
    """Looks up the caller's API key, before the body is read. Raises Refusal 401.

    `reader` and `writer` then use the key that was found.
    """
    await state.run(request, _find_call(request))


def reader(request: Request) -> ApiKey:
    """Returns the API key of the request, after checking that the key has the scope `read`.

    Raises Refusal 401 if the request has no key, a wrong or revoked key, or two different keys,
    Refusal 403 if the key lacks the scope, and NotInPlan if its plan lacks the feature of the
    surface. Unless `identify` has looked the key up, the calling thread blocks until Redis answers.
    """
    return _caller(request, "read")


def reader_call(request: Request) -> Call[ApiKey]:
    """Returns the call by which a coroutine gets what `reader` returns.

    The Refusal of a request without exactly one key is raised at once.
    """
    return _find_call(request, "read")


async def reader_or_ticket(request: Request, ticket: str | None) -> ApiKey:
    """Returns what `reader` returns, or the key of a ticket, which is thereby used up.

    Raises Refusal 401 if the ticket is unknown, used or too old, or its key was revoked.
    """
    if ticket is None:
        return await state.run(request, reader_call(request))
    key_id = await to_thread.run_sync(tickets_of(request).use, ticket)
    key = await to_thread.run_sync(state.keys_of(request).find_by_id, key_id) if key_id else None
    if key is None:
        raise _unauthorized("the ticket is wrong, was used or is too old: make a new one")
    request.scope["state"]["api_key"] = key
    return _checked(request, key, "read")


def tickets_of(request: Request) -> Tickets:
    """Returns the tickets for event streams."""
    names = KeyNames(state.service_of(request).settings.redis_prefix)
    return Tickets(state.keys_of(request).client, "event_ticket", TICKET_TTL, names)


def writer(request: Request) -> ApiKey:
    """Returns the API key of the request, after checking that the key has the scope `write`.

    The errors are those of `reader`.
    """
    return _caller(request, "write")


def operator(request: Request) -> ApiKey:
    """Returns the API key of the request, after checking that the key has the scope `operator`.

    The errors are those of `reader`.
    """
    return _caller(request, "operator")


def caller(request: Request) -> ApiKey:
    """Returns the API key of a request that `reader`, `writer` or a call of theirs has checked."""
    found: ApiKey = request.scope["state"]["api_key"]
    return found


def owner(key: ApiKey, user_id: str | None = None) -> str | None:
    """Returns the user whose exports the key may see and steer; None for those of all users.

    An operator may choose the user by `user_id`. Raises Refusal 403 if another key chooses a user
    who is not its own.
    """
    if "operator" in key.scopes:
        return user_id
    if user_id not in (None, key.user_id):
        raise _missing_scope(key, "operator")
    return key.user_id


def _missing_scope(key: ApiKey, scope: str) -> Refusal:
    return Refusal(
        403,
        "scope_missing",
        f"this key may {' and '.join(key.scopes)}; the request needs the scope {scope!r}",
        headers={"WWW-Authenticate": f'{_CHALLENGE}, error="insufficient_scope", scope="{scope}"'},
    )


def _caller(request: Request, scope: str) -> ApiKey:
    found: ApiKey | None = request.scope["state"].get("api_key")
    return _checked(request, found or state.run_blocking(request, _find_call(request)), scope)


def _checked(request: Request, key: ApiKey, scope: str) -> ApiKey:
    if scope not in key.scopes:
        raise _missing_scope(key, scope)
    feature = state.surfaces_of(request).feature(request.scope["path"])
    if feature is not None:
        key.plan.check(feature)
    return key


def presented(headers: RawHeaders) -> str | None:
    """Returns the secret that a request presents, unchecked; None unless there is exactly one."""
    try:
        return _secret(headers)
    except Refusal:
        return None


def _find_call(request: Request, scope: str | None = None) -> Call[ApiKey]:
    """Returns the call for the caller's key, which checks the key for a scope if one is given."""

    def check(key: ApiKey | None) -> ApiKey:
        if key is None:
            raise _unauthorized("the API key is wrong or was revoked", ', error="invalid_token"')
        request.scope["state"]["api_key"] = key
        return key if scope is None else _checked(request, key, scope)

    # Looked up at each request, so that a revoked key stops working at once.
    return state.keys_of(request).find_call(_secret(request.scope["headers"])).then(check)


def secret(request: Request) -> str:
    """Returns the secret that a request presents, unchecked; Refusal 401 unless it is one."""
    return _secret(request.scope["headers"])


def _secret(headers: RawHeaders) -> str:
    found: dict[str, str] = {}
    for raw_name, raw_value in headers:
        if raw_name not in _KEY_HEADERS:
            continue
        secret = raw_value.decode("latin-1").strip()
        name = _KEY_HEADERS[raw_name]
        if name == "Authorization":
            # A proxy may use Authorization for itself (Basic), so other schemes are ignored.
            scheme, _, secret = secret.partition(" ")
            secret = secret.strip() if scheme.lower() in _SCHEMES else ""
        if secret:
            found.setdefault(secret, name)
    if not found:
        raise _unauthorized(
            "no API key: send `Authorization: Bearer KEY`, `Authorization: ApiKey KEY`,"
            " `X-API-Key: KEY` or `apikey: KEY`"
        )
    if len(found) > 1:
        names = " and ".join(sorted(set(found.values())))
        raise _unauthorized(
            f"conflict: {names} contain different API keys; send only one key",
            ', error="invalid_request"',
        )
    return next(iter(found))


def _unauthorized(detail: str, reason: str = "") -> Refusal:
    return Refusal(401, "unauthorized", detail, headers={"WWW-Authenticate": _CHALLENGE + reason})
