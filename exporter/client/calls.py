"""Requests to the service: their headers, which answers are tried again, and when."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

import msgspec

from exporter.client import errors
from exporter.client.errors import ConnectionFailed
from exporter.client.steps import Reply, Request, Sleep, Steps, send

MAX_WAIT_SECONDS = 120.0
"""Longest Retry-After that is waited for; an error with a longer one is raised at once."""
FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.5, 8.0
"""Pause before the second try if the service names none; it doubles with each try."""
_NO_CONTENT = 204
_RETRIED = frozenset({408, 429})


class Service(NamedTuple):
    """The service of a client."""

    url: str
    """Without a slash at its end."""
    key: str
    max_retries: int = 2
    """Most further tries of a request; waiting for an export goes on for longer."""

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Request:
        """Returns a request of a path of the API, with the key; `body` is sent as JSON."""
        given = {name: value for name, value in (query or {}).items() if value is not None}
        own = {"authorization": f"Bearer {self.key}", "accept": "application/json"}
        content = None if body is None else msgspec.json.encode(body)
        if content is not None:
            own["content-type"] = "application/json"
        url = f"{self.url}{path}" + (f"?{urlencode(given, doseq=True)}" if given else "")
        return Request(method, url, {**own, **(headers or {})}, content)


def service(url: str, key: str, max_retries: int) -> Service:
    """Returns the service at a URL. Raises ValueError for a malformed URL or key."""
    stripped = key.strip()
    if not stripped or not (stripped.isascii() and stripped.isprintable()):
        # Never quoted: a part of a key is a secret, too.
        raise ValueError("the API key is empty or holds characters that no key has")
    try:
        parts = urlsplit(url.strip())
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    if not is_url:
        raise ValueError(
            f"{url!r} is not an address of a service: write it like https://exports.example.com"
        )
    return Service(url.strip().rstrip("/"), stripped, max_retries)


def call(service: Service, request: Request) -> Steps[dict[str, Any]]:
    """Returns the JSON object of a successful answer, after as many tries as are allowed.

    It is empty for an answer without a body. The errors are those of `ask`.
    """
    reply = yield from ask(service, request)
    return {} if reply.status == _NO_CONTENT else decode(reply, request)


def ask(service: Service, request: Request) -> Steps[Reply]:
    """Returns a successful answer, after as many tries as are allowed.

    Raises ApiError for another answer, and ConnectionFailed without one.
    """
    tries = 0
    while True:
        error: errors.ClientError
        pause: float | None
        try:
            reply = yield from send(request)
        except ConnectionFailed as failed:
            error, pause = failed, _pause(tries)
        else:
            if 200 <= reply.status < 300:
                return reply
            error, pause = error_of(reply, request), _pause_of(reply, tries)
        if tries >= service.max_retries or pause is None:
            raise error
        tries += 1
        yield Sleep(pause)


def decode(reply: Reply, request: Request) -> dict[str, Any]:
    """Returns the JSON object in an answer; raises ServerFailed if there is none."""
    try:
        found = msgspec.json.decode(reply.body)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise _no_service(reply, request)
    return found


def error_of(reply: Reply, request: Request) -> errors.ApiError:
    """Returns the error in an answer."""
    try:
        body = msgspec.json.decode(reply.body)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        return _no_service(reply, request)
    detail = str(body.get("detail") or "no reason was given")
    problems: Sequence[Any] = body.get("errors") or ()
    return errors.of_status(reply.status)(
        reply.status,
        str(body.get("code") or "http_error"),
        detail,
        title=str(body.get("title") or ""),
        problems=[one for one in problems if isinstance(one, dict)],
        request_id=reply.headers.get("x-request-id"),
        retry_after=_retry_after(reply.headers),
    )


def _no_service(reply: Reply, request: Request) -> errors.ApiError:
    # A proxy answers like this while the service behind it restarts.
    place = urlsplit(request.url)
    return errors.ServerFailed(
        reply.status,
        "no_service",
        f"{place.scheme}://{place.netloc} is not an exporter: {request.method} {place.path}"
        f" answered {reply.status} without a JSON object",
        retry_after=_retry_after(reply.headers),
    )


def _pause_of(reply: Reply, tries: int) -> float | None:
    """Returns the seconds until the next try of a request with this answer; None for no try."""
    verdict = reply.headers.get("x-should-retry")
    if verdict == "false":
        return None
    if verdict != "true" and reply.status not in _RETRIED and reply.status < 500:
        return None
    named = _retry_after(reply.headers)
    if named is None:
        return _pause(tries)
    return named if named <= MAX_WAIT_SECONDS else None


def _pause(tries: int) -> float:
    # Spread, so that clients that failed together do not come back together.
    whole = min(FIRST_PAUSE_SECONDS * 2.0**tries, MAX_PAUSE_SECONDS)
    return whole * (1 - 0.25 * random.random())  # noqa: S311


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Returns the seconds that an answer names for the next try; None if it names none."""
    try:
        if "retry-after-ms" in headers:
            return max(float(headers["retry-after-ms"]) / 1000, 0.0)
        text = headers["retry-after"]
        if text.strip().isdigit():
            return float(text)
        return max(parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    except (KeyError, ValueError):
        return None
