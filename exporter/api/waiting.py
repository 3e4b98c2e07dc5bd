"""Polls that wait for the end of an export: one look per export for all that wait for it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import cast

import anyio
from fastapi import Request

from exporter.api.state import run, show_call

POLL_SECONDS = 0.5
"""Time between two reads of a record while polls wait for its end."""


class _Watch:
    def __init__(self) -> None:
        self.ended = anyio.Event()
        self.polls = 0


class Watches:
    """The exports of which this process waits for the end. Used on the event loop only."""

    def __init__(self) -> None:
        self._watches: dict[str, _Watch] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def wait(self, request: Request, export_id: str) -> None:
        """Returns when the export has ended, was deleted, or cannot be read."""
        watch = self._watches.get(export_id)
        if watch is None:
            watch = self._watches[export_id] = _Watch()
            task = asyncio.create_task(self._look(request, export_id, watch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        watch.polls += 1
        try:
            await watch.ended.wait()
        finally:
            watch.polls -= 1

    async def _look(self, request: Request, export_id: str, watch: _Watch) -> None:
        # The polls look once more themselves, so an error here is answered by each of them.
        with contextlib.suppress(Exception):
            while watch.polls:
                await anyio.sleep(POLL_SECONDS)
                export = await run(request, show_call(request, export_id))
                if export is None or export.terminal or not export.readable:
                    break
        del self._watches[export_id]
        watch.ended.set()


async def until_end(request: Request, export_id: str, seconds: float) -> bool:
    """Waits for the end of the export, at most so many seconds; False if the client has left."""
    watches = cast("Watches", request.app.state.watches)
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
            await watches.wait(request, export_id)
            tasks.cancel_scope.cancel()
    return is_present
