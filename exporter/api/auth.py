"""Who calls: the API key of a request, in any of the four ways that clients send one."""

from __future__ import annotations

from fastapi import Request
from starlette.datastructures import Headers

from exporter.api.refusal import Refusal
from exporter.api.state import keys_of
from exporter.store.redis.api_keys import ApiKey, KeyRing

_SCHEMES = ("bearer", "apikey")
_KEY_HEADERS = {b"authorization": "Authorization", b"x-api-key": "X-API-Key", b"apikey": "apikey"}
"""Headers that a key may come in: as they arrive, and as they are named."""
_CHALLENGE = 'Bearer realm="exporter"'

SCHEMES = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "`Authorization: Bearer KEY`; `Authorization: ApiKey KEY` means the same.",
    },
    "header": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "`apikey: KEY` means the same.",
    },
}
"""For the OpenAPI document: either will do."""


def reader(request: Request, keys: KeyRing | None = None) -> ApiKey:
    """The caller, who may read. Raises Refusal 401 or 403.

    `keys` are those of a coroutine's turn; without them the caller's thread waits for Redis.
    """
    return _caller(request, "read", keys)


def writer(request: Request, keys: KeyRing | None = None) -> ApiKey:
    """The caller, who may create and cancel; see `reader`. Raises Refusal 401 or 403."""
    return _caller(request, "write", keys)


def _caller(request: Request, scope: str, keys: KeyRing | None) -> ApiKey:
    # Looked up each time: a key revoked a moment ago must not work now.
    key = (keys or keys_of(request)).find(_secret(request.headers))
    if key is None:
        raise _unauthorized("the API key is wrong or was revoked", ', error="invalid_token"')
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


def _secret(headers: Headers) -> str:
    found: dict[str, str] = {}
    for raw_name, raw_value in headers.raw:
        if raw_name not in _KEY_HEADERS:
            continue
        secret = raw_value.decode("latin-1").strip()
        name = _KEY_HEADERS[raw_name]
        if name == "Authorization":
            # A proxy may use it for itself (Basic), so only our schemes count.
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
            f"conflict: {names} hold different API keys; send one", ', error="invalid_request"'
        )
    return next(iter(found))


def _unauthorized(detail: str, reason: str = "") -> Refusal:
    return Refusal(401, "unauthorized", detail, headers={"WWW-Authenticate": _CHALLENGE + reason})
