"""Injects faults into the board's searches: delays, errors, false pages and cut connections."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import re
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, NamedTuple

from fastapi import FastAPI, Response
from pydantic import BaseModel, field_validator
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders, QueryParams
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from exporter.board.misbehavior import drift, lies

_DRIP_SECONDS, _DRIP_CHUNKS = 4.0, 20
_MAX_LATENCY_SECONDS = 60.0
_MAX_DRIFT_PER_SECOND = 100.0
_TRANSPORT_KEY = "exporter.board.transport"
_NUMBER = r"([0-9]+(?:\.[0-9]+)?)"


@dataclass(frozen=True)
class Spec:
    """Faults to inject, and their rates."""

    text: str
    """Text from which the spec was parsed."""
    latency: tuple[float, float]
    """Minimum and maximum delay of each response, in seconds."""
    shares: Mapping[str, float]
    """Percent of searches per fault; at most 100 in total, as a search has at most one fault."""
    drift: float
    """Postings changed per second."""
    seed: int


def parse(text: str) -> Spec:
    """Parses a spec such as `latency=20ms-80ms,429=2%,reset=1%,drift=3/s,seed=7`.

    Entries are separated by commas, in any order, each name at most once; an empty text means no
    faults. `latency` is a time or a range of times, up to 60 s; `drift` is up to 100/s; `seed` is a
    whole number, by default 1. All other names are faults, each with its share of the searches:

    - `429`, `503`: error with a `Retry-After` of 1 second, in a quarter of the cases as a date 2
      seconds ahead; `403`: error with a `Retry-After` of half a second, as a rate limit; `502`,
      `500`, `404`, `401`: error without `Retry-After`; `302`: a redirect to a maintenance page.
    - `reset`: the connection is reset in the middle of the body; `truncate`: the connection is
      closed cleanly in the middle of the body; `slow`: the body is sent over four seconds.
    - `coding`: the true page, with an unknown `Content-Encoding`; `latin1`: the true page in
      ISO-8859-1, as its content type says; `gzip`: the true page compressed, without saying so.
    - `html`: a 200 with a web page; `shape`: a 200 with JSON of another shape.
    - `empty`: a page without postings but with the true total; `short`: the last one to three of
      the page's postings are missing, but never all; `total`: a false total and page count, or for
      pages without a total a false number of postings on the page; `cursor`: the next cursor equals
      the requested cursor. These four leave a page unchanged if it cannot have the fault: it has no
      postings to remove, or no cursor.

    Raises ValueError with the valid syntax for an invalid text.
    """
    given: dict[str, str] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = (part.strip() for part in entry.partition("="))
        if name not in (*_FAULTS, "latency", "drift", "seed"):
            known = ", ".join(("latency", *_FAULTS, "drift", "seed"))
            raise ValueError(f"{name!r} is not a fault of the board: choose from {known}")
        if name in given:
            raise ValueError(f"{name} is given twice: give it once")
        given[name] = value
    shares = {name: _share(name, given[name]) for name in _FAULTS if name in given}
    if sum(shares.values()) > 100 + 1e-9:
        raise ValueError(
            f"the faults add up to {sum(shares.values()):g}% of the searches: a search has "
            "at most one fault, so lower some shares to 100% in total"
        )
    seed = given.get("seed", "1")
    if not re.fullmatch("[0-9]{1,18}", seed):
        raise ValueError(f"seed={seed}: give a whole number of up to 18 digits, such as seed=7")
    return Spec(text, _latency(given.get("latency", "0s")), shares, _drift(given), int(seed))


def _share(name: str, value: str) -> float:
    matched = re.fullmatch(f"{_NUMBER}%", value)
    if not matched or float(matched[1]) > 100:
        raise ValueError(
            f"{name}={value}: give a share of the searches from 0% to 100%, such as {name}=2%"
        )
    return float(matched[1])


def _latency(value: str) -> tuple[float, float]:
    matched = re.fullmatch(f"{_NUMBER}(ms|s)(?:-{_NUMBER}(ms|s))?", value)
    if matched:
        low = float(matched[1]) / (1000 if matched[2] == "ms" else 1)
        high = float(matched[3]) / (1000 if matched[4] == "ms" else 1) if matched[3] else low
        if low <= high <= _MAX_LATENCY_SECONDS:
            return low, high
    raise ValueError(
        f"latency={value}: give a time of up to {_MAX_LATENCY_SECONDS:g}s or a range of times, "
        "such as latency=50ms or latency=20ms-1.5s"
    )


def _drift(given: Mapping[str, str]) -> float:
    value = given.get("drift", "0/s")
    matched = re.fullmatch(f"{_NUMBER}/s", value)
    if not matched or float(matched[1]) > _MAX_DRIFT_PER_SECOND:
        raise ValueError(
            f"drift={value}: give up to {_MAX_DRIFT_PER_SECOND:g} changes a second, "
            "such as drift=3/s"
        )
    return float(matched[1])


class Protocol(H11Protocol):
    """Server protocol that passes the connection's transport to the app in `scope["state"]`.

    An ASGI app can only send a response. To break the connection in the middle of a response, the
    app needs the transport, which ASGI does not provide.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, _TRANSPORT_KEY: transport}


def attach(app: FastAPI, database_path: Path, spec: str) -> None:
    """Injects the faults of `spec` into the app's searches until `POST /faults` replaces the spec.

    `POST /faults` (body: `{"spec": text}`) starts again with another spec: all counts are zero, and
    the faults depend only on the spec, its seed and the number of the search. `POST /faults` and
    `GET /faults` return `{"spec", "searches", "done"}`: the current spec, the number of searches
    under it, and the number of times each fault or change was made.

    A drift inserts, updates and deletes its own postings and the postings that an earlier drift
    left: synthetic ones whose ids begin with drift.ID_PREFIX. All other postings stay unchanged. In
    the board's default order, new and updated postings come last; in an order by date or by salary
    they move other postings from page to page.

    The app must be served with Protocol. Raises ValueError for a spec that `parse` rejects.
    """
    faults = _Faults(database_path, parse(spec))
    app.add_middleware(_FaultMiddleware, faults=faults)

    @app.get("/faults")
    def show() -> dict[str, Any]:
        return faults.report()

    @app.post("/faults")
    def replace(request: _SpecRequest) -> dict[str, Any]:
        faults.apply_spec(parse(request.spec))
        return faults.report()


class _SpecRequest(BaseModel, extra="forbid"):
    spec: str

    @field_validator("spec")
    @classmethod
    def _known(cls, spec: str) -> str:
        parse(spec)
        return spec


@dataclass
class _Run:
    """The current spec, and the numbers of searches and faults since it was applied.

    A request counts for the spec that was the current one when the request started.
    """

    spec: Spec
    searches: int = 0
    done: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("latency", *_FAULTS, *drift.CHANGES), 0)
    )

    def next_search(self) -> tuple[random.Random, str | None]:
        """Returns the random generator of the next search and its fault, if any.

        Both depend only on the spec, its seed and the number of the search, so random numbers used
        for one search do not change the faults of the next.
        """
        self.searches += 1
        chances = random.Random(f"{self.spec.seed}:{self.searches}")  # noqa: S311 - not a secret
        point = chances.uniform(0, 100)
        for name, share in self.spec.shares.items():
            point -= share
            if point < 0:
                return chances, name
        return chances, None


class _Faults:
    """Holds the current spec and runs its drift.

    Any thread may call `apply_spec`. `begin` is called once when the server starts, and `end` once
    when it stops.
    """

    def __init__(self, database_path: Path, spec: Spec) -> None:
        self._path = database_path
        self._lock = threading.Lock()
        self._drift: drift.Drift | None = None
        self.run = _Run(spec)

    def begin(self) -> None:
        self.apply_spec(self.run.spec)

    def apply_spec(self, spec: Spec) -> None:
        with self._lock:
            self._end_drift()
            self.run = _Run(spec)
            if spec.drift:
                self._drift = drift.Drift(self._path, spec.drift, spec.seed, self.run.done)
                self._drift.start()

    def report(self) -> dict[str, Any]:
        run = self.run
        return {"spec": run.spec.text, "searches": run.searches, "done": dict(run.done)}

    def end(self) -> None:
        with self._lock:
            self._end_drift()

    def _end_drift(self) -> None:
        if self._drift is not None:
            self._drift.stop()
            self._drift = None


class _Answer(NamedTuple):
    """A complete response of the board, whose transmission will be disturbed by a fault."""

    start: Message
    body: bytes
    transport: asyncio.Transport
    receive: Receive
    send: Send

    async def send_part(self, chances: random.Random) -> None:
        await self.send(self.start)
        part = self.body[: int(len(self.body) * chances.uniform(0.2, 0.8)) or 1]
        await self.send({"type": "http.response.body", "body": part, "more_body": True})

    async def wait_for_disconnect(self) -> None:
        """Waits until the server notices that the client is disconnected.

        If the app returned earlier, the server would log an error about an incomplete response.
        """
        while (await self.receive())["type"] != "http.disconnect":
            pass


class _FaultMiddleware:
    """Passes requests to the app; delays searches and injects at most one fault into each."""

    def __init__(self, app: ASGIApp, faults: _Faults) -> None:
        self._app = app
        self._faults = faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, self._with_lifespan(send))
        elif scope["type"] == "http" and (scope["method"], scope["path"]) in lies.SHAPES:
            await self._search(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _with_lifespan(self, send: Send) -> Send:
        async def run_and_send(message: Message) -> None:
            # Acts before sending, because the server does not run the app after its last message.
            if message["type"] == "lifespan.startup.complete":
                self._faults.begin()
            elif message["type"] == "lifespan.shutdown.complete":
                await run_in_threadpool(self._faults.end)
            await send(message)

        return run_and_send

    async def _search(self, scope: Scope, receive: Receive, send: Send) -> None:
        run = self._faults.run
        chances, fault = run.next_search()
        if run.spec.latency[1]:
            await asyncio.sleep(chances.uniform(*run.spec.latency))
            run.done["latency"] += 1
        if fault is None:
            await self._app(scope, receive, send)
            return
        if fault in _REPLACEMENTS:
            run.done[fault] += 1
            await _REPLACEMENTS[fault](chances)(scope, receive, send)
            return
        start, body = await self._complete_answer(scope, receive)
        if fault in _TRANSMISSION_FAULTS:
            run.done[fault] += 1
            answer = _Answer(start, body, scope["state"][_TRANSPORT_KEY], receive, send)
            await _TRANSMISSION_FAULTS[fault](chances, answer)
            return
        headers, changed = MutableHeaders(scope=start), None
        if fault in _WRITINGS:
            changed = _WRITINGS[fault](headers, body)
        elif start["status"] == 200:
            cursor = QueryParams(scope["query_string"]).get("cursor")
            changed = lies.apply(fault, chances, (scope["method"], scope["path"]), cursor, body)
        if changed is not None:
            run.done[fault] += 1
            headers["Content-Length"] = str(len(changed))
        await send(start)
        await send({"type": "http.response.body", "body": body if changed is None else changed})

    async def _complete_answer(self, scope: Scope, receive: Receive) -> tuple[Message, bytes]:
        messages: list[Message] = []

        async def keep(message: Message) -> None:
            messages.append(message)

        await self._app(scope, receive, keep)
        return messages[0], b"".join(message.get("body", b"") for message in messages[1:])


def _declare_coding(headers: MutableHeaders, body: bytes) -> bytes:
    headers["Content-Encoding"] = "UTF-8"
    return body


def _in_latin1(headers: MutableHeaders, body: bytes) -> bytes:
    headers["Content-Type"] = "application/json; charset=ISO-8859-1"
    escaped = re.sub("[^\x00-\xff]", lambda found: json.dumps(found[0])[1:-1], body.decode())
    return escaped.encode("latin-1")


def _compressed(_: MutableHeaders, body: bytes) -> bytes:
    return gzip.compress(body)


def _error_response(
    status: int,
    detail: str,
    chances: random.Random | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    headers = dict(headers or {})
    if chances is not None:
        # A date has whole seconds, so a date one second ahead could be past when it is read.
        date = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
        headers["Retry-After"] = date if chances.random() < 0.25 else "1"
    return Response(json.dumps({"detail": detail}), status, headers, "application/json")


def _another_shape(chances: random.Random) -> Response:
    shapes: tuple[Any, ...] = (
        [],
        {},
        {"detail": "ok"},
        {"jobs": None, "total_count": 0},
        {"jobs": {"0": {"_id": "x"}}, "total_count": 1},
        {"data": {"jobs": [], "total_count": 0}},
        {"results": [], "count": 0},
    )
    return Response(json.dumps(chances.choice(shapes)), media_type="application/json")


async def _reset_connection(chances: random.Random, answer: _Answer) -> None:
    await answer.send_part(chances)
    if not answer.transport.is_closing():  # a disconnected socket accepts no options
        # With SO_LINGER 0, closing sends a reset and discards the data in the send buffer.
        answer.transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        answer.transport.abort()
    await answer.wait_for_disconnect()


async def _truncate_body(chances: random.Random, answer: _Answer) -> None:
    await answer.send_part(chances)
    answer.transport.close()
    await answer.wait_for_disconnect()


async def _drip_body(_: random.Random, answer: _Answer) -> None:
    await answer.send(answer.start)
    size = -(-len(answer.body) // _DRIP_CHUNKS)
    for begin in range(0, len(answer.body), size):
        await asyncio.sleep(_DRIP_SECONDS / _DRIP_CHUNKS)
        part = answer.body[begin : begin + size]
        await answer.send({"type": "http.response.body", "body": part, "more_body": True})
    await answer.send({"type": "http.response.body", "body": b""})


_HTML_PAGE = "<!doctype html><title>Down for maintenance</title><h1>Back in a minute</h1>"
_REPLACEMENTS: Mapping[str, Callable[[random.Random], Response]] = {
    "429": lambda chances: _error_response(429, "Too many requests: wait for Retry-After", chances),
    "503": lambda chances: _error_response(503, "Overloaded: wait for Retry-After", chances),
    "502": lambda _: _error_response(502, "Bad gateway"),
    "500": lambda _: _error_response(500, "Internal server error"),
    "404": lambda _: _error_response(404, "Not Found"),
    "403": lambda _: _error_response(403, "Too many requests", headers={"Retry-After": "0.5"}),
    "401": lambda _: _error_response(401, "Unauthorized"),
    "302": lambda _: _error_response(302, "Found", headers={"Location": "/maintenance"}),
    "html": lambda _: Response(_HTML_PAGE, media_type="text/html"),
    "shape": _another_shape,
}
_TRANSMISSION_FAULTS: Mapping[str, Callable[[random.Random, _Answer], Awaitable[None]]] = {
    "reset": _reset_connection,
    "truncate": _truncate_body,
    "slow": _drip_body,
}
_WRITINGS: Mapping[str, Callable[[MutableHeaders, bytes], bytes]] = {
    "coding": _declare_coding,
    "latin1": _in_latin1,
    "gzip": _compressed,
}
"""Maps the name of a fault to the function that writes a true page in an odd way."""
_FAULTS: tuple[str, ...] = (*_REPLACEMENTS, *_TRANSMISSION_FAULTS, *lies.LIES, *_WRITINGS)
