"""How a handler comes by the engine and the keys that its app was made with.

Plain functions and no dependencies of FastAPI: each of those costs a poll as much as Redis does,
and one that is no coroutine costs a second trip through the thread pool.
"""

from __future__ import annotations

from typing import cast

from fastapi import FastAPI, Request

from exporter.engine import Engine
from exporter.store.keys import KeyRing


def bind(app: FastAPI, engine: Engine, keys: KeyRing) -> None:
    """Give an app its engine and its keys."""
    app.state.engine = engine
    app.state.keys = keys


def engine_of(request: Request) -> Engine:
    """The engine that the request's app was made with."""
    return cast("Engine", request.app.state.engine)


def keys_of(request: Request) -> KeyRing:
    """The keys that the request's app was made with."""
    return cast("KeyRing", request.app.state.keys)
