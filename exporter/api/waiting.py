"""Requests that wait: for the end of an export, or for a delivery of a listener."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
from fastapi import Request

from exporter.api.events.feeds import feeds_of


async def until_end(request: Request, export_id: str, seconds: float) -> bool:
    """Waits for the end of the export, at most so many seconds; False if the client has left."""

    async def follow() -> None:
        async with feeds_of(request).export(request, export_id) as follower:
            while not follower.is_over:
                await follower.take()

    return await until(request, follow, seconds)


async def until(request: Request, wait: Callable[[], Awaitable[None]], seconds: float) -> bool:
    """Waits for what `wait` waits for, at most so many seconds; False if the client has left."""
    is_present = True
    with anyio.move_on_after(seconds):
        async with anyio.create_task_group() as tasks:

            async def leave() -> None:
                nonlocal is_present
                while (await request.receive())["type"] != "http.disconnect":
                    pass
                is_present = False
                tasks.cancel_scope.cancel()

            tasks.start_soon(leave)
            await wait()
            tasks.cancel_scope.cancel()
    return is_present
