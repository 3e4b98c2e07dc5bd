"""The blocking and the asynchronous client, behind one face."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from exporter.client import AsyncExporter, Exporter, calls, files, operations

KEY = "exp_1"


class Twin:
    """Calls a method of one of the clients and returns the result; of an iterator, a list."""

    def __init__(self, kind: str, url: str, **options: Any) -> None:
        self._kind, self._url, self._options = kind, url, options

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self._kind == "blocking":
                with Exporter(self._url, KEY, **self._options) as client:
                    found = getattr(client, name)(*args, **kwargs)
                    return list(found) if isinstance(found, Iterator) else found
            return asyncio.run(self._awaited(name, args, kwargs))

        return call

    async def _awaited(self, name: str, args: Any, kwargs: Any) -> Any:
        async with AsyncExporter(self._url, KEY, **self._options) as client:
            found = getattr(client, name)(*args, **kwargs)
            if hasattr(found, "__aiter__"):
                return [one async for one in found]
            return await found


@pytest.fixture(params=["blocking", "async"])
def twin(request: pytest.FixtureRequest) -> Callable[..., Twin]:
    return lambda url, **options: Twin(request.param, url, **options)


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "MAX_POLL_SECONDS", 0.001)
    for module in (calls, files):
        monkeypatch.setattr(module, "FIRST_PAUSE_SECONDS", 0.001)
