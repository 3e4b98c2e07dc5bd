"""Authenticates a request by its API key, which may be sent in one of four forms.

The forms are `Authorization: Bearer KEY`, `Authorization: ApiKey KEY`, `X-API-Key: KEY` and
`apikey: KEY`.
"""

from __future__ import annotations

from fastapi import Request
from starlette.datastructures import Headers

from exporter.api.refusal import Refusal
from exporter.api.state import keys_of, runner_of
from exporter.store.redis.api_keys import ApiKey, KeyRing

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
    found = await runner_of(request).run(lambda turn: _find(request, turn.keys))
    request.scope["state"]["api_key"] = found


def reader(request: Request, keys: KeyRing | None = None) -> ApiKey:
    """Returns the API key of the request, after checking that the key has the scope `read`.

    Raises Refusal 401 if the request has no key, a wrong or revoked key, or two different keys, and
    Refusal 403 if the key lacks the scope. Coroutines pass the `keys` of their AsyncRunner. Without
    `keys`, the calling thread blocks until Redis answers.
    """
    return _caller(request, "read", keys)


def writer(request: Request, keys: KeyRing | None = None) -> ApiKey:
    """Returns the API key of the request, after checking that the key has the scope `write`.

    The errors and the argument `keys` are those of `reader`.
    """
    return _caller(request, "write", keys)


def _caller(request: Request, scope: str, keys: KeyRing | None) -> ApiKey:
    state = request.scope["state"]
    key: ApiKey = state.get("api_key") or _find(request, keys)
    state["api_key"] = key
    if scope not in key.scopes:
        raise Refusal(
            403,
            "scope_missing",
            f"this key may {' and '.join(key.scopes)}; the request needs the scope {scope!r}",
            headers={
                "WWW-Authenticate": f'{_CHALLENGE}, error="insufficient_scope", scope="{scope}"'
            },
        )
    return key


def presented(headers: Headers) -> str | None:
    """Returns the secret that a request presents, unchecked; None unless there is exactly one."""
    try:
        return _secret(headers)
    except Refusal:
        return None


def _find(request: Request, keys: KeyRing | None) -> ApiKey:
    # Looked up at each request, so that a revoked key stops working at once.
    key = (keys or keys_of(request)).find(_secret(request.headers))
    if key is None:
        raise _unauthorized("the API key is wrong or was revoked", ', error="invalid_token"')
    return key


def _secret(headers: Headers) -> str:
    found: dict[str, str] = {}
    for raw_name, raw_value in headers.raw:
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
