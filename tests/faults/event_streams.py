"""Event streams under faults: `python -m tests.faults.event_streams --streams 500`.

Opens as many streams, half of them of one export and the others of a user, as browsers do: a lost
stream is opened again with the id of its last event. Meanwhile the API is killed with SIGKILL,
Redis is restarted, and the API is stopped with SIGTERM. Each stream must end with the true state of
its export. Prints a table; exits with 1 if one did not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from exporter.client import Exporter
from exporter.store.redis.api_keys import KeyRing
from tests.faults.cluster import USERS, Cluster

STREAMS_OF_A_KEY = 5
ENDED = frozenset({"finished", "failed", "canceled"})


class Listener:
    """One stream of events, which is opened again until all awaited exports have ended."""

    def __init__(self, key: str, path: str, awaited: Sequence[str], *, reconnect: float) -> None:
        self.path, self.awaited = path, frozenset(awaited)
        self.states: dict[str, str] = {}
        """The latest state of each export that was told."""
        self.connections = Counter[str]()
        """Answers by status, and lost connections."""
        self._key, self._reconnect = key, reconnect
        self._last_id: str | None = None

    @property
    def is_done(self) -> bool:
        """True if the stream has told the end of all awaited exports."""
        return all(self.states.get(one) in ENDED for one in self.awaited)

    async def run(self, client: httpx.AsyncClient) -> None:
        """Listens until done."""
        while not self.is_done:
            headers = {"X-API-Key": self._key}
            if self._last_id is not None:
                headers["Last-Event-ID"] = self._last_id
            try:
                async with client.stream("GET", self.path, headers=headers) as response:
                    self.connections[str(response.status_code)] += 1
                    if response.status_code == 200:
                        await self._listen(response)
            except httpx.HTTPError as error:
                self.connections[type(error).__name__] += 1
            await asyncio.sleep(self._reconnect * random.uniform(0.7, 1.3))

    async def _listen(self, response: httpx.Response) -> None:
        async for line in response.aiter_lines():
            name, _, value = line.partition(": ")
            if name == "id":
                self._last_id = value
            elif name == "data":
                one = json.loads(value)
                if one["id"] in self.awaited:
                    self.states[one["id"]] = one.get("state", "deleted")
            if self.is_done and self.path.startswith("/v1/events"):
                return


class Audience:
    """Streams on an event loop of their own, beside the cluster that is hurt."""

    def __init__(self, url: str, listeners: Sequence[Listener]) -> None:
        self.listeners = listeners
        self._url = url
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        async def listen() -> None:
            limits = httpx.Limits(max_connections=None)
            timeout = httpx.Timeout(10, read=30)
            async with httpx.AsyncClient(
                base_url=self._url, limits=limits, timeout=timeout
            ) as client:
                await asyncio.gather(*(one.run(client) for one in self.listeners))

        asyncio.run(listen())

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listens from before the block until all are done, or the caller gives up."""
        self._thread.start()
        yield

    def wait(self, seconds: float, meanwhile: Callable[[], None]) -> bool:
        """Waits until all listeners are done; False after so many seconds."""
        until = time.monotonic() + seconds
        while self._thread.is_alive() and time.monotonic() < until:
            meanwhile()
            self._thread.join(0.1)
        return not self._thread.is_alive()

    @property
    def connections(self) -> Counter[str]:
        """Answers and lost connections of all streams."""
        return sum((one.connections for one in self.listeners), Counter())

    def wrong(self, true_state: Callable[[str], str]) -> list[tuple[str, str, str, str]]:
        """Returns path, export, told and true state of what was told wrong or not at all."""
        return [
            (one.path, export_id, told, true)
            for one in self.listeners
            for export_id in one.awaited
            if (told := one.states.get(export_id, "nothing")) != (true := true_state(export_id))
        ]


def audience(
    cluster: Cluster, made: dict[str, list[str]], streams: int, *, reconnect: float
) -> Audience:
    """Returns streams of the exports of each user: of one export, and of the user, in turns."""
    ring = KeyRing(cluster.store.client)
    listeners: list[Listener] = []
    users = [user for user in made if made[user]]
    while len(listeners) < streams:
        user = users[len(listeners) // STREAMS_OF_A_KEY % len(users)]
        key = ring.create(user)
        for number in range(min(STREAMS_OF_A_KEY, streams - len(listeners))):
            export_id = made[user][(len(listeners) + number) % len(made[user])]
            path, awaited = f"/v1/exports/{export_id}/events", [export_id]
            if number % 2:
                path, awaited = "/v1/events", made[user]
            listeners.append(Listener(key, path, awaited, reconnect=reconnect))
    return Audience(cluster.url, listeners)


def create(exporter: Exporter, count: int, **fields: Any) -> list[str]:
    """Creates so many exports and returns their ids."""
    return [exporter.create("board", {}, **fields).id for _ in range(count)]


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--exports", type=int, default=30)
    parser.add_argument("--rows", type=int, default=10_000)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        Cluster(
            Path(folder), workers=2, rows=arguments.rows, faults="latency=20ms-60ms"
        ) as cluster,
    ):
        each = arguments.exports // len(USERS)
        made = {user: create(cluster.clients[user], each, format="csv") for user in USERS}
        heard = audience(cluster, made, arguments.streams, reconnect=3.0)

        def elapse(seconds: float) -> None:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                cluster.supervise()
                time.sleep(0.05)

        began = time.monotonic()
        with heard.listening():
            elapse(4)
            open_streams = heard.connections["200"]
            cluster.kill_api()
            elapse(5)
            cluster.redis.kill()
            elapse(1)
            cluster.redis.start()
            elapse(5)
            cluster.api.terminate()
            done = heard.wait(300, cluster.supervise)
        took = time.monotonic() - began

        def true_state(export_id: str) -> str:
            found = cluster.store.show(export_id)
            return "deleted" if found is None else str(found.state)

        wrong = heard.wrong(true_state)
    lines = [
        f"streams {len(heard.listeners)}, opened before the first fault {open_streams}",
        f"all done: {done}, after {took:.0f} s; wrong: {len(wrong)}",
        f"connections: {dict(heard.connections)}",
        *(f"wrong: {one}" for one in wrong[:10]),
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if wrong or not done else 0


if __name__ == "__main__":
    sys.exit(main())
