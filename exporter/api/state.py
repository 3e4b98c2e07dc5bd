"""How a handler comes by the engine and the keys that its app was made with."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, FastAPI, Request

from exporter.engine import Engine
from exporter.store.keys import KeyRing


def bind(app: FastAPI, engine: Engine, keys: KeyRing) -> None:
    """Give an app its engine and its keys."""
    app.state.engine = engine
    app.state.keys = keys


async def engine_of(request: Request) -> Engine:
    """The engine that the request's app was made with."""
    return cast("Engine", request.app.state.engine)


def keys_of(request: Request) -> KeyRing:
    """The keys that the request's app was made with."""
    return cast("KeyRing", request.app.state.keys)


TheEngine = Annotated[Engine, Depends(engine_of)]
