"""Lets the requests of one API key take turns, so that they never occupy all threads."""

from __future__ import annotations

import functools
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import ParamSpec, cast

import anyio
from anyio import to_thread
from fastapi import FastAPI, Request
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from exporter.api import auth, errors
from exporter.api.refusal import Refusal
from exporter.core import limits
from exporter.core.limits import Limit
from exporter.store.redis.api_keys import ApiKey

MAX_KEY_REQUESTS = limits.KEY_REQUESTS.default
MAX_KEY_WAITING_REQUESTS = limits.KEY_WAITING_REQUESTS.default
MAX_CONCURRENT_SOURCE_REQUESTS = 16
"""Concurrent requests of one process to sources while callers wait for the response.

A source that hangs blocks at most this many threads, so that exports can still be created and
polled.
"""

P = ParamSpec("P")


@dataclass
class _Queue:
    active: int = 0
    waiting: deque[anyio.Event] = field(default_factory=deque)


class Turns:
    """Counts what the requests of each key occupy in this process. Used on the event loop only."""

    def __init__(self) -> None:
        self._queues: dict[str, _Queue] = {}
        self._held = Counter[tuple[str, str]]()

    async def acquire(self, key: str) -> None:
        """Waits until fewer than MAX_KEY_REQUESTS of the key are processed.

        Raises Refusal 429 if MAX_KEY_WAITING_REQUESTS wait already.
        """
        queue = self._queues.setdefault(key, _Queue())
        if queue.active < MAX_KEY_REQUESTS:
            queue.active += 1
            return
        if len(queue.waiting) >= MAX_KEY_WAITING_REQUESTS:
            raise Refusal(
                429,
                "too_many_requests",
                f"{len(queue.waiting)} requests with this key wait already: send fewer at once",
                headers={"Retry-After": str(errors.RETRY_AFTER_SECONDS)},
            )
        turn = anyio.Event()
        queue.waiting.append(turn)
        try:
            await turn.wait()
        except BaseException:
            if turn.is_set():
                self.release(key)
            else:
                queue.waiting.remove(turn)
            raise

    def release(self, key: str) -> None:
        """Ends a turn; the request that has waited longest gets its turn."""
        queue = self._queues[key]
        if queue.waiting:
            queue.waiting.popleft().set()
            return
        queue.active -= 1
        if not queue.active:
            del self._queues[key]

    @contextmanager
    def hold(self, request: HTTPConnection, limit: Limit[int]) -> Iterator[bool]:
        """Counts one more use of the request's key within the block; yields False above the limit.

        The limit is that of the key's plan, else the default; 0 means no limit.
        """
        name = limit.name, auth.presented(request.scope["headers"]) or ""
        key: ApiKey | None = request.scope["state"].get("api_key")
        allowed = limit.default if key is None else key.plan.limits.get(limit.name, limit.default)
        is_allowed = not allowed or self._held[name] < cast("int", allowed)
        self._held[name] += 1
        try:
            yield is_allowed
        finally:
            self._held[name] -= 1
            if not self._held[name]:
                del self._held[name]


class InTurn:
    """Passes requests to the app in turns, until each answer begins."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope) if scope["type"] == "http" else None
        key = auth.presented(request.scope["headers"]) if request else None
        if request is None or key is None or is_waiting_poll(scope):
            await self._app(scope, receive, send)
            return
        turns = turns_of(request)
        try:
            await turns.acquire(key)
        except Refusal as refusal:
            await errors.answer(request, refusal)(scope, receive, send)
            return
        is_held = scope["state"]["in_turn"] = True

        async def until_answered(message: Message) -> None:
            nonlocal is_held
            if is_held and message["type"] == "http.response.start":
                is_held = False
                turns.release(key)
            await send(message)

        try:
            await self._app(scope, receive, until_answered)
        finally:
            if is_held:
                turns.release(key)


@asynccontextmanager
async def turn(request: Request) -> AsyncIterator[None]:
    """Waits for the turn of a request that did not pass through `InTurn`."""
    key = None if "in_turn" in request.scope["state"] else auth.presented(request.scope["headers"])
    if key is None:
        yield
        return
    turns = turns_of(request)
    await turns.acquire(key)
    try:
        yield
    finally:
        turns.release(key)


def waits_for_source(handler: Callable[P, Response]) -> Callable[P, Awaitable[Response]]:
    """Makes a handler run in one of the threads that may wait for sources."""

    @functools.wraps(handler)
    async def run(*args: P.args, **kwargs: P.kwargs) -> Response:
        request = cast("Request", args[0] if args else kwargs["request"])
        call = functools.partial(handler, *args, **kwargs)
        return await to_thread.run_sync(call, limiter=request.app.state.askers)

    return run


def is_waiting_poll(scope: Scope) -> bool:
    """True for a poll, creation or take that may wait, which occupies no thread meanwhile."""
    folder, _, last = scope["path"].rpartition("/")
    if scope["method"] == "POST" and scope["path"] == "/v1/exports":
        return True
    if scope["method"] == "POST":
        return bool(last == "take" and folder.startswith("/v1/webhook-endpoints/"))
    return (
        scope["method"] in ("GET", "HEAD")
        and folder == "/v1/exports"
        and bool(scope["query_string"])
    )


def turns_of(request: HTTPConnection) -> Turns:
    """Returns the turns of the request's app."""
    return cast("Turns", cast("FastAPI", request.app).state.turns)
