"""Admits the requests that create exports, in the same round trip to Redis as the creation.

A creation needs three answers of Redis: the caller's API key, the rate limits of the key, and the
record. One after the other they took more processor time than anything else. So the key is first
assumed to be what this process read last, counting is postponed, and one atomic step then verifies
the key, counts the request and records the export. Any other end of the request, such as an invalid
body, is preceded by the same checks, so its answer is the same as if they had been made first.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable

from fastapi import Request
from starlette.responses import Response

from exporter.api import auth, bodies
from exporter.api.bodies import TheBody
from exporter.api.state import keys_of, limits_of, run
from exporter.store.redis.admissions import UNCONDITIONAL, Admission
from exporter.store.redis.api_keys import KeyChanged
from exporter.store.redis.rate_limits import Count

Creation = Callable[[Request, bytes], Awaitable[Response]]

MAX_ASSUMED_BODY_BYTES = 16 * 1024
"""Largest body that is read before the caller's key is verified."""
_ADMITTED: set[Creation] = set()


async def read_body(request: Request, handler: Creation) -> bytes:
    """Returns what `bodies.read` returns, but lets a known key be verified by the creation.

    That applies to a small body, and to handlers that `admitted` wraps.
    """
    known = None
    if handler in _ADMITTED and bodies.is_announced(request, MAX_ASSUMED_BODY_BYTES):
        known = keys_of(request).known(auth.secret(request))
    if known is None:
        return await bodies.read(request)
    request.scope["state"].update(api_key=known.key, admission=Admission(known))
    return await bodies.receive(request)


def count(request: Request, counted: Count) -> None:
    """Postpones counting the request to `take` or `settle`; counts are checked in this order."""
    pending = _pending(request)
    request.scope["state"]["admission"] = pending._replace(counts=(*pending.counts, counted))


def take(request: Request) -> Admission:
    """Returns what is still to be checked, for the caller to check it with the creation."""
    pending = _pending(request)
    request.scope["state"]["admission"] = UNCONDITIONAL
    return pending


async def settle(request: Request) -> None:
    """Checks now what is still to be checked.

    Raises Refusal 401, what a count raises, or KeyChanged. After KeyChanged, the request has its
    key as it is now, and nothing is left to be checked.
    """
    pending = take(request)
    if pending.key is not None:
        await auth.identify(request)
        if request.scope["state"]["api_key"] != pending.key.key:
            raise KeyChanged
    for one in pending.counts:
        call = limits_of(request).acquire_call(one.name, one.rate)
        await run(request, call.then(one.check))


def admitted(handler: Creation) -> Creation:
    """Makes a handler check everything before its answer, and run again if the key has changed."""

    async def attempt(request: Request, body: bytes) -> Response:
        try:
            response = await handler(request, body)
        except KeyChanged:
            raise
        except Exception:
            await settle(request)
            raise
        await settle(request)
        return response

    @functools.wraps(handler)
    async def create(request: Request, body: TheBody) -> Response:
        try:
            return await attempt(request, body)
        except KeyChanged:
            await auth.identify(request)
            return await attempt(request, body)

    _ADMITTED.add(create)
    return create


def _pending(request: Request) -> Admission:
    found: Admission = request.scope["state"].get("admission", UNCONDITIONAL)
    return found
