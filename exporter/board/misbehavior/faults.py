"""Faults on order: a board that answers searches late, wrongly, by halves or not at all."""

from __future__ import annotations

import asyncio
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

_DRIP_SECONDS, _DRIPS = 4.0, 20
_LONGEST_LATENCY = 60.0
_FASTEST_DRIFT = 100.0
_TRANSPORT = "exporter.board.transport"
_NUMBER = r"([0-9]+(?:\.[0-9]+)?)"


@dataclass(frozen=True)
class Spec:
    """What a board does wrong, and how often."""

    text: str
    """As it was ordered."""
    latency: tuple[float, float]
    """Seconds, the least and the most, by which each answer is late."""
    shares: Mapping[str, float]
    """Percent of the searches by fault; together at most 100, for a search meets one at most."""
    drift: float
    """Postings changed a second."""
    seed: int


def parse(text: str) -> Spec:
    """The spec that a text such as `latency=20ms-80ms,429=2%,reset=1%,drift=3/s,seed=7` means.

    Entries are separated by commas, in any order, none of them twice; an empty text is a board
    that does nothing wrong. `latency` is a time or a range of times, up to 60 s; `drift` is up to
    100/s; `seed` is a whole number, by default 1. All other names are faults, each with its share
    of the searches:

    - `429`, `503`: refused, with a Retry-After of a second, now and then written as a date;
      `502`, `500`: refused without one.
    - `reset`: the connection is reset in the middle of the body; `truncate`: it is closed there,
      cleanly, with bytes still owed; `slow`: the body drips over four seconds.
    - `html`: a 200 that is a web page; `shape`: a 200 of JSON in another shape.
    - `empty`: no postings beside the true total; `short`: the last one to three of the page's
      postings are missing, never all; `total`: a false total, with the number of pages that
      follows from it, or where pages tell no total, a false number of postings on the page;
      `cursor`: the cursor that was asked for comes again as the next. A page with nothing to take
      away, or without a cursor, is left as it is.

    Raises ValueError, which says what to write instead.
    """
    given: dict[str, str] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = (part.strip() for part in entry.partition("="))
        if name not in (*_FAULTS, "latency", "drift", "seed"):
            known = ", ".join(("latency", *_FAULTS, "drift", "seed"))
            raise ValueError(f"{name!r} is no fault of the board: choose from {known}")
        if name in given:
            raise ValueError(f"{name} is ordered twice: give it once")
        given[name] = value
    shares = {name: _share(name, given[name]) for name in _FAULTS if name in given}
    if sum(shares.values()) > 100 + 1e-9:
        raise ValueError(
            f"the faults add up to {sum(shares.values()):g}% of the searches: a search meets one "
            "fault at most, so lower some to 100% in all"
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
        if low <= high <= _LONGEST_LATENCY:
            return low, high
    raise ValueError(
        f"latency={value}: give a time of up to {_LONGEST_LATENCY:g}s or a range of times, "
        "such as latency=50ms or latency=20ms-1.5s"
    )


def _drift(given: Mapping[str, str]) -> float:
    value = given.get("drift", "0/s")
    matched = re.fullmatch(f"{_NUMBER}/s", value)
    if not matched or float(matched[1]) > _FASTEST_DRIFT:
        raise ValueError(
            f"drift={value}: give up to {_FASTEST_DRIFT:g} changes a second, such as drift=3/s"
        )
    return float(matched[1])


class Protocol(H11Protocol):
    """The server's side of a connection, which tells the app how to break it.

    An app may only send a response; a connection that breaks in the middle of one needs the
    transport, and that is not part of what ASGI hands over.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, _TRANSPORT: transport}


def attach(app: FastAPI, database_path: Path, spec: str) -> None:
    """Makes the board's searches go wrong as `spec` says, until a `POST /faults` says otherwise.

    `POST /faults` (body: `{"spec": text}`) begins anew with another spec: its first search meets
    the fault that the first search of that spec and seed always meets, and all counts are zero.
    That and `GET /faults` answer `{"spec", "searches", "done"}`: the spec in force, how many
    searches it has seen, and how often each thing was done.

    A drift inserts, updates and deletes postings of its own, and those that a drift before it
    left: synthetic ones whose ids begin with drift.PREFIX. All other postings hold still. In the
    board's default order, new and updated postings stand last; in an order by date or by salary
    they push others from page to page.

    The app must be served with Protocol. Raises ValueError for a spec that parse refuses.
    """
    faults = _Faults(database_path, parse(spec))
    app.add_middleware(_Misbehaving, faults=faults)

    @app.get("/faults")
    def show() -> dict[str, Any]:
        return faults.told()

    @app.post("/faults")
    def order(wanted: _Order) -> dict[str, Any]:
        faults.order(parse(wanted.spec))
        return faults.told()


class _Order(BaseModel, extra="forbid"):
    spec: str

    @field_validator("spec")
    @classmethod
    def _known(cls, spec: str) -> str:
        parse(spec)
        return spec


@dataclass
class _Run:
    """What was done under one spec; requests that it began with stay with it."""

    spec: Spec
    searches: int = 0
    done: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("latency", *_FAULTS, *drift.CHANGES), 0)
    )

    def next_search(self) -> tuple[random.Random, str | None]:
        """The chances of this search and the fault that it meets, if any.

        They depend on the seed and the number of the search alone, so what happens to one search
        takes nothing from the chances of the next.
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
    """The spec in force and its drift. `begin` and `end` are called once, `order` by any thread."""

    def __init__(self, database_path: Path, spec: Spec) -> None:
        self._path = database_path
        self._lock = threading.Lock()
        self._drift: drift.Drift | None = None
        self.run = _Run(spec)

    def begin(self) -> None:
        self.order(self.run.spec)

    def order(self, spec: Spec) -> None:
        with self._lock:
            self._end_drift()
            self.run = _Run(spec)
            if spec.drift:
                self._drift = drift.Drift(self._path, spec.drift, spec.seed, self.run.done)
                self._drift.start()

    def told(self) -> dict[str, Any]:
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
    """A whole answer that is about to be sent badly."""

    start: Message
    body: bytes
    transport: asyncio.Transport
    receive: Receive
    send: Send

    async def send_part(self, chances: random.Random) -> None:
        await self.send(self.start)
        part = self.body[: int(len(self.body) * chances.uniform(0.2, 0.8)) or 1]
        await self.send({"type": "http.response.body", "body": part, "more_body": True})

    async def gone(self) -> None:
        """Returns when the server knows it too: it would blame an app that returns before."""
        while (await self.receive())["type"] != "http.disconnect":
            pass


class _Misbehaving:
    """Passes searches on, except that each may be late and meet one fault."""

    def __init__(self, app: ASGIApp, faults: _Faults) -> None:
        self._app = app
        self._faults = faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, self._around(send))
        elif scope["type"] == "http" and (scope["method"], scope["path"]) in lies.SHAPES:
            await self._search(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _around(self, send: Send) -> Send:
        async def told(message: Message) -> None:
            # Before the server hears of it: nobody runs what an app does after its last message.
            if message["type"] == "lifespan.startup.complete":
                self._faults.begin()
            elif message["type"] == "lifespan.shutdown.complete":
                await run_in_threadpool(self._faults.end)
            await send(message)

        return told

    async def _search(self, scope: Scope, receive: Receive, send: Send) -> None:
        run = self._faults.run
        chances, fault = run.next_search()
        if run.spec.latency[1]:
            await asyncio.sleep(chances.uniform(*run.spec.latency))
            run.done["latency"] += 1
        if fault is None:
            await self._app(scope, receive, send)
            return
        if fault in _INSTEAD:
            run.done[fault] += 1
            await _INSTEAD[fault](chances)(scope, receive, send)
            return
        start, body = await self._whole(scope, receive)
        if fault in lies.LIES:
            search = scope["method"], scope["path"]
            cursor = QueryParams(scope["query_string"]).get("cursor")
            whole = start["status"] == 200
            lie = lies.apply(fault, chances, search, cursor, body) if whole else None
            if lie is not None:
                run.done[fault] += 1
                body = lie
                MutableHeaders(scope=start)["Content-Length"] = str(len(body))
            await send(start)
            await send({"type": "http.response.body", "body": body})
            return
        run.done[fault] += 1
        answer = _Answer(start, body, scope["state"][_TRANSPORT], receive, send)
        await _CUTS[fault](chances, answer)

    async def _whole(self, scope: Scope, receive: Receive) -> tuple[Message, bytes]:
        messages: list[Message] = []

        async def keep(message: Message) -> None:
            messages.append(message)

        await self._app(scope, receive, keep)
        return messages[0], b"".join(message.get("body", b"") for message in messages[1:])


def _refused(status: int, detail: str, chances: random.Random | None = None) -> Response:
    headers = {}
    if chances is not None:
        # A date is cut to whole seconds: one second ahead may be past before it is read.
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


async def _reset(chances: random.Random, answer: _Answer) -> None:
    await answer.send_part(chances)
    if not answer.transport.is_closing():  # a socket that its client left takes no options
        # Without lingering, closing is a reset; what a full buffer still holds is thrown away.
        answer.transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        answer.transport.abort()
    await answer.gone()


async def _truncate(chances: random.Random, answer: _Answer) -> None:
    await answer.send_part(chances)
    answer.transport.close()
    await answer.gone()


async def _drip(_: random.Random, answer: _Answer) -> None:
    await answer.send(answer.start)
    size = -(-len(answer.body) // _DRIPS)
    for begin in range(0, len(answer.body), size):
        await asyncio.sleep(_DRIP_SECONDS / _DRIPS)
        part = answer.body[begin : begin + size]
        await answer.send({"type": "http.response.body", "body": part, "more_body": True})
    await answer.send({"type": "http.response.body", "body": b""})


_PAGE_OF_THE_WEB = "<!doctype html><title>Down for maintenance</title><h1>Back in a minute</h1>"
_INSTEAD: Mapping[str, Callable[[random.Random], Response]] = {
    "429": lambda chances: _refused(429, "Too many requests: wait for Retry-After", chances),
    "503": lambda chances: _refused(503, "Overloaded: wait for Retry-After", chances),
    "502": lambda _: _refused(502, "Bad gateway"),
    "500": lambda _: _refused(500, "Internal server error"),
    "html": lambda _: Response(_PAGE_OF_THE_WEB, media_type="text/html"),
    "shape": _another_shape,
}
_CUTS: Mapping[str, Callable[[random.Random, _Answer], Awaitable[None]]] = {
    "reset": _reset,
    "truncate": _truncate,
    "slow": _drip,
}
_FAULTS: tuple[str, ...] = (*_INSTEAD, *_CUTS, *lies.LIES)
