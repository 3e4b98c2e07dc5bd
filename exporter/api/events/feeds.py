"""Feeds of changed exports: one poller of Redis for all that follow the same exports."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Hashable, Mapping
from contextlib import asynccontextmanager
from typing import Protocol, cast

import structlog
from fastapi import FastAPI, Request

from exporter.api.state import changed_call, live_call, run, show_call, shows_call
from exporter.core.exports import Export
from exporter.errors import StoreUnavailable

POLL_SECONDS = 0.5
"""Time between two reads of the exports that are followed."""
OUTAGE_SECONDS = 2.0
"""Time between two reads while Redis does not answer."""
_READ_AT_ONCE = 100
"""Records in one round trip: about 3 ms of Redis."""

Changes = Mapping[str, Export | None]
"""Exports by id as they are now; None for one that was deleted."""

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Feed(Protocol):
    """Exports that are followed."""

    @property
    def known(self) -> Changes:
        """The followed exports as they were at the latest read."""

    @property
    def is_over(self) -> bool:
        """True if nothing will change any more."""

    async def read(self) -> Changes:
        """Returns what has changed since the latest read. Raises StoreUnavailable."""


class OneExport:
    """Follows one export until its end."""

    def __init__(self, request: Request, export_id: str) -> None:
        self._request, self._id = request, export_id
        self.known: dict[str, Export | None] = {}

    @property
    def is_over(self) -> bool:
        return any(one is None or one.terminal or not one.readable for one in self.known.values())

    async def read(self) -> Changes:
        latest = {self._id: await run(self._request, show_call(self._request, self._id))}
        if latest == self.known:
            return {}
        self.known = latest
        return latest


class UserExports:
    """Follows the queued and running exports of a user, or of all users.

    Changes of the newest `store.base.MAX_LIVE` queued and as many running exports are seen, each
    with its end. An export that was created and has ended between two reads is seen, too.
    """

    def __init__(self, request: Request, user_id: str | None) -> None:
        self._request, self._user = request, user_id
        self._newest: int | None = None
        self.known: dict[str, Export | None] = {}
        self.is_over = False

    async def read(self) -> Changes:
        live = await run(self._request, live_call(self._request, self._user, self._newest))
        self._newest = live.newest
        present = {*live.queued, *live.running}
        appeared = {*present, *live.created} - self.known.keys()
        gone = self.known.keys() - present
        running = [one for one in live.running if one in self.known]
        stamps = await run(self._request, changed_call(self._request, running))
        moved = {
            one
            for one, stamp in zip(running, stamps, strict=True)
            if (before := self.known[one]) is None or stamp != before.updated_at
        }
        found = await self._show({*appeared, *gone, *moved})
        changes = {one: export for one, export in found.items() if export != self.known.get(one)}
        for one, export in found.items():
            if export is None or one not in present or export.terminal:
                self.known.pop(one, None)
            else:
                self.known[one] = export
        return changes

    async def _show(self, ids: Collection[str]) -> Changes:
        found: dict[str, Export | None] = {}
        order = sorted(ids)
        for begin in range(0, len(order), _READ_AT_ONCE):
            some = order[begin : begin + _READ_AT_ONCE]
            exports = await run(self._request, shows_call(self._request, some))
            found |= zip(some, exports, strict=True)
        return found


class Follower:
    """One that follows a feed: collects the latest of each export until it is taken."""

    def __init__(self) -> None:
        self._pending: dict[str, Export | None] = {}
        self._ready = asyncio.Event()
        self._is_over = self._is_begun = False

    def add(self, changes: Changes, *, is_over: bool) -> None:
        """Adds changes; those of an export replace earlier ones that were not taken."""
        self._pending |= changes
        self._is_over = is_over
        if changes or is_over or not self._is_begun:
            self._ready.set()
        self._is_begun = True

    @property
    def is_over(self) -> bool:
        """True if nothing comes after what was taken."""
        return self._is_over and not self._pending

    async def take(self) -> Changes:
        """Waits for changes and returns them; the first reading is awaited and may have none."""
        await self._ready.wait()
        self._ready.clear()
        taken, self._pending = self._pending, {}
        return taken


class Feeds:
    """All feeds of a process. Used on the event loop only."""

    def __init__(self) -> None:
        self._followers: dict[Hashable, list[Follower]] = {}
        self._feeds: dict[Hashable, Feed] = {}
        self._read: set[Hashable] = set()
        """Names of the feeds that were read at least once."""
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def export(self, request: Request, export_id: str) -> AsyncIterator[Follower]:
        """Follows an export within the block; its present state comes first."""
        async with self._follow(("export", export_id), OneExport(request, export_id)) as found:
            yield found

    @asynccontextmanager
    async def user(self, request: Request, user_id: str | None) -> AsyncIterator[Follower]:
        """Follows the exports of a user (None: of all) within the block, live ones first."""
        async with self._follow(("user", user_id), UserExports(request, user_id)) as found:
            yield found

    @asynccontextmanager
    async def _follow(self, name: Hashable, new: Feed) -> AsyncIterator[Follower]:
        follower = Follower()
        if name in self._feeds:
            if name in self._read:
                follower.add(self._feeds[name].known, is_over=False)
            self._followers[name].append(follower)
        else:
            self._feeds[name], self._followers[name] = new, [follower]
            task = asyncio.create_task(self._poll(name))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            yield follower
        finally:
            with contextlib.suppress(KeyError, ValueError):
                self._followers[name].remove(follower)

    async def _poll(self, name: Hashable) -> None:
        feed, followers = self._feeds[name], self._followers[name]
        try:
            while followers and not feed.is_over:
                pause = POLL_SECONDS
                try:
                    changes = await feed.read()
                except StoreUnavailable:
                    pause = OUTAGE_SECONDS
                else:
                    self._read.add(name)
                    for one in followers:
                        one.add(changes, is_over=feed.is_over)
                if not feed.is_over:
                    await asyncio.sleep(pause)
        except Exception:
            log.exception("events.feed_failed", feed=str(name))
        finally:
            del self._feeds[name], self._followers[name]
            self._read.discard(name)
            for one in followers:
                one.add({}, is_over=True)


def feeds_of(request: Request) -> Feeds:
    """Returns the feeds of the request's app."""
    return cast("Feeds", cast("FastAPI", request.app).state.feeds)
