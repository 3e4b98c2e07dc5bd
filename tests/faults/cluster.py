"""A whole service of real processes on free ports, each of which can be hurt."""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Self, cast
from unittest import mock

import httpx
import psutil
import redis

from exporter.cli.client import Client
from exporter.clock import SystemClock
from exporter.local import ports, s3
from exporter.local.children import Child, ChildError
from exporter.local.redis import RedisServer
from exporter.local.s3 import S3Server
from exporter.storage.s3 import S3Storage
from exporter.store.redis.api_keys import KeyRing
from exporter.store.redis.store import RedisStore

LEASE = timedelta(seconds=4)
SLICE = timedelta(seconds=3)
PART = 5 * 1024 * 1024
PAGE = 100
PARTITION_ROWS = 3_000
"""An export of twice as many rows is cut."""
USERS = ("ada", "bert", "cleo")
DRAIN_PATIENCE = 15.0
"""Seconds that a worker told to end may take before it is killed; it should need 5 at most."""
_BUCKET = "exports"
_CONFIG = """\
[sources.board]
type = "hirebase"
base_url = "{board}"
api_key = "${{BOARD_KEY}}"
page_size = {page}
tolerated_drift = 0.0
"""


class Cluster:
    """Redis, S3, a board, one API and some workers; nothing of it outlives the `with` block.

    Everything is as in production but the times and sizes: leases of 4 s, slices of 3 s, parts of
    5 MiB. Each worker is a process tree of its own with one slice at a time. What ended is started
    again by `supervise`, which the driver calls a few times a second.

    Use it from one thread, which must live as long as the cluster.
    """

    def __init__(
        self, directory: Path, *, workers: int = 4, rows: int = 30_000, faults: str = ""
    ) -> None:
        # S3's admin port is the first, because it takes a second port far above.
        *side, redis_port, s3_port, board_port, api_port = _ports(len(s3.SIDE_PORTS) + 4)
        self.ended: Counter[str] = Counter()
        """How workers ended, counted."""
        self.drains: list[float] = []
        """Seconds from SIGTERM to the end, of each worker that was told to end and not excused."""
        self._told: dict[Child, float] = {}
        self._killed: set[Child] = set()
        self._excused: set[Child] = set()
        self._paused: set[Child] = set()
        self._dir = directory.absolute()
        self._master = f"http://127.0.0.1:{side[s3.SIDE_PORTS.index('master.port')]}"
        self._board_key = secrets.token_hex(16)
        access_key, secret_key = secrets.token_hex(10), secrets.token_hex(20)
        self.redis = RedisServer(self._dir, redis_port)
        self.s3 = S3Server(self._dir, s3_port, access_key, secret_key, _BUCKET, side)
        self.url = f"http://127.0.0.1:{api_port}"
        self._board_url = f"http://127.0.0.1:{board_port}"
        self._env = self._environment(access_key, secret_key)
        # `storage` finds the key of our S3 where boto3 looks for it.
        self._own_keys = mock.patch.dict(
            os.environ, {name: value for name, value in self._env.items() if name[:3] == "AWS"}
        )
        self.board = self._command(
            "board",
            [
                *("board", "serve", "--database", str(self._dir / "board.sqlite")),
                *("--rows", str(rows), "--port", str(board_port), "--faults", faults),
            ],
            _healthy(self._board_url),
        )
        self.api = self._command("api", ["api", "--port", str(api_port)], _healthy(self.url))
        self.workers = [self._worker(number) for number in range(workers)]
        self.store = RedisStore.connect(self.redis.url)
        self.broker = redis.Redis.from_url(self._broker_url)
        self.storage = S3Storage(
            _BUCKET,
            endpoint_url=self.s3.endpoint_url,
            public_endpoint_url=None,
            region="us-east-1",
            clock=SystemClock(),
        )
        self.clients: dict[str, Client] = {}

    # -- life ----------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _start(self) -> None:
        self._own_keys.start()
        self._dir.mkdir(parents=True, exist_ok=True)
        (self._dir / "exporter.toml").write_text(
            _CONFIG.format(board=self._board_url, page=PAGE), "utf-8"
        )
        _bring_up([self.redis, self.s3, self.board])
        ring = KeyRing(self.store.client)
        for user in USERS:
            self.clients[user] = Client(self.url, ring.create(user))
        _bring_up([self.api, *self.workers])

    def _stop(self) -> None:
        for client in self.clients.values():
            client.__exit__()
        self.store.client.close()
        self.broker.close()
        for child in (*self.workers, self.api, self.board, self.s3, self.redis):
            child.kill()
        self._own_keys.stop()

    # -- workers -------------------------------------------------------------------------------

    def pids(self, number: int) -> set[int]:
        """The process of a worker and those of its pool, as far as they run."""
        try:
            parent = psutil.Process(self.workers[number].pid)
            return {parent.pid, *(child.pid for child in parent.children(recursive=True))}
        except (psutil.NoSuchProcess, RuntimeError):
            return set()

    def holds(self, number: int) -> bool:
        """Whether a worker has an export under lease."""
        pids = self.pids(number)
        client = self.store.client
        for export_id in cast("list[bytes]", client.zrange("exporter:leases", 0, -1)):
            worker = cast("bytes | None", client.hget(b"exporter:export:" + export_id, "worker_id"))
            if worker is not None and int(worker.rpartition(b"-")[2]) in pids:
                return True
        return False

    def kill_worker(self, number: int) -> None:
        """SIGKILL to the whole tree; `supervise` starts another."""
        child = self.workers[number]
        self._killed.add(child)
        self._forget(child)
        child.kill()

    def kill_pool(self, number: int) -> None:
        """SIGKILL to the pool process alone, as the kernel does when memory runs out."""
        for pid in self.pids(number) - {self.workers[number].pid}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def pause_worker(self, number: int) -> None:
        """SIGSTOP to the whole tree."""
        child = self.workers[number]
        if _runs(child):
            self._paused.add(child)
            os.killpg(child.pid, signal.SIGSTOP)

    def continue_worker(self, number: int) -> None:
        """SIGCONT to the whole tree; nothing if it was killed meanwhile."""
        child = self.workers[number]
        if child in self._paused:
            self._paused.discard(child)
            os.killpg(child.pid, signal.SIGCONT)

    def term_worker(self, number: int) -> None:
        """SIGTERM to the worker, as a deploy does; `supervise` starts another when it has ended."""
        child = self.workers[number]
        if _runs(child) and child not in self._told:
            self._told[child] = time.monotonic()
            child.terminate()

    def excuse_drains(self) -> None:
        """Redis or S3 is away, so a worker that was told to end may need its own patience."""
        self._excused |= set(self._told)

    def is_paused(self, number: int) -> bool:
        return self.workers[number] in self._paused

    def is_told(self, number: int) -> bool:
        return self.workers[number] in self._told

    def supervise(self) -> None:
        """Start again what has ended, and count why; does not wait until it is up."""
        for child in self.workers:
            if _runs(child):
                if time.monotonic() - self._told.get(child, time.monotonic()) < DRAIN_PATIENCE:
                    continue
                child.kill()
            self.ended[self._why(child)] += 1
            self._forget(child)
            self._killed.discard(child)
            child.kill()  # whatever of its pool is left
            child.launch()
        if not _runs(self.api):
            self.api.kill()
            self.api.launch()

    def settle(self, patience: float = 60.0) -> None:
        """Return when every worker and the API answer; those that were paused go on."""
        for number in range(len(self.workers)):
            self.continue_worker(number)
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            self.supervise()
            if all(child.ready() for child in (self.api, *self.workers) if _runs(child)):
                return
            time.sleep(0.2)
        raise ChildError(f"the cluster did not settle within {patience:g} s")

    def _forget(self, child: Child) -> None:
        self._told.pop(child, None)
        self._paused.discard(child)
        self._excused.discard(child)

    def _why(self, child: Child) -> str:
        if child in self._killed:
            return "killed"
        if child not in self._told:
            return "by itself"
        took = time.monotonic() - self._told[child]
        if child in self._excused:
            return "told to, during an outage"
        self.drains.append(took)
        return "told to" if took < DRAIN_PATIENCE else "killed, for not draining"

    # -- the others ----------------------------------------------------------------------------

    def kill_api(self) -> None:
        """SIGKILL; `supervise` starts another."""
        self.api.kill()

    def order_faults(self, spec: str) -> None:
        """Tell the board how to misbehave from now on; '' is a board that does nothing wrong."""
        httpx.post(
            f"{self._board_url}/faults",
            json={"spec": spec},
            headers={"x-api-key": self._board_key},
            timeout=10,
        ).raise_for_status()

    def delete_messages(self) -> None:
        """All doorbells vanish: those on the broker and the wake-ups that nobody has heard."""
        self.store.client.delete("exporter:wake")
        for queue in self._queues():
            self.broker.delete(queue)

    def duplicate_messages(self) -> None:
        """Every doorbell on the broker is there twice; one at least is."""
        for queue in self._queues():
            messages = cast("list[bytes]", self.broker.lrange(queue, 0, -1))
            if messages:
                self.broker.lpush(queue, *messages)

    def reclaim_disk(self) -> None:
        """Make S3 give back the room of deleted objects, which it does by itself too late."""
        with contextlib.suppress(httpx.HTTPError):
            httpx.get(f"{self._master}/vol/vacuum?garbageThreshold=0.1", timeout=60)

    def disk(self) -> int:
        """Bytes on disk of all that the cluster keeps."""
        size = 0
        for folder, _, names in os.walk(self._dir):
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    size += (Path(folder) / name).stat().st_blocks * 512
        return size

    def _queues(self) -> list[bytes]:
        return [
            key
            for key in cast("list[bytes]", self.broker.keys("exporter*"))
            if cast("bytes", self.broker.type(key)) == b"list"
        ]

    # -- how they are started ------------------------------------------------------------------

    @property
    def _broker_url(self) -> str:
        return f"{self.redis.url.removesuffix('/0')}/1"

    def _environment(self, access_key: str, secret_key: str) -> dict[str, str]:
        env = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("AWS_", "EXPORTER_"))
        }
        return env | {
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_ACCESS_KEY_ID": access_key,
            "AWS_SECRET_ACCESS_KEY": secret_key,
            "BOARD_KEY": self._board_key,
            # The code beside these tests, not the tree that an editable install points at, which
            # people edit while a soak runs.
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "EXPORTER_CONFIG": str(self._dir / "exporter.toml"),
            "EXPORTER_REDIS_URL": self.redis.url,
            "EXPORTER_BROKER_URL": self._broker_url,
            "EXPORTER_S3_ENDPOINT_URL": self.s3.endpoint_url,
            "EXPORTER_S3_BUCKET": _BUCKET,
            "EXPORTER_PUBLIC_URL": self.url,
            "EXPORTER_LEASE_SECONDS": f"{LEASE.total_seconds():g}",
            "EXPORTER_SLICE_SECONDS": f"{SLICE.total_seconds():g}",
            "EXPORTER_PART_SIZE": str(PART),
            "EXPORTER_PARTITION_ROWS": str(PARTITION_ROWS),
            "EXPORTER_PARTITIONS": "4",
            # Workers die here far more often than in any fleet; what an export that kills its
            # workers itself comes to is test_fleet_poison's.
            "EXPORTER_MAX_ATTEMPTS": "20",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    def _command(self, name: str, arguments: list[str], answers: Callable[[], bool]) -> Child:
        return Child(
            name,
            [sys.executable, "-m", "exporter.cli", *arguments],
            self._dir / "logs" / f"{name}.log",
            answers=answers,
            env=self._env,
            cwd=self._dir,
        )

    def _worker(self, number: int) -> Child:
        def reports() -> bool:
            # By process id: the mark of one that was killed stays for a while.
            mark = f"exporter:workers:{socket.gethostname()}:{child.pid}"
            try:
                return bool(self.store.client.exists(mark))
            except redis.RedisError:
                return False

        child = self._command(f"worker-{number}", ["worker", "--concurrency", "1"], reports)
        return child


def _bring_up(children: Sequence[Child]) -> None:
    for child in children:
        child.launch()
    waiting = list(children)
    while waiting:
        waiting = [child for child in waiting if not child.ready()]
        time.sleep(0.05)


def _runs(child: Child) -> bool:
    try:
        child.check()
    except (ChildError, RuntimeError):
        return False
    return True


def _healthy(url: str) -> Callable[[], bool]:
    def answers() -> bool:
        try:
            return httpx.get(f"{url}/health", timeout=2).is_success
        except httpx.HTTPError:
            return False

    return answers


def _ports(count: int) -> list[int]:
    """Free ports, the first with a free one 10,000 above, below those of outgoing connections.

    Who connects to a server that was just killed gets a port of its own from the system; were that
    one the server's, the connection would lead to itself, and the server could not come back.
    """
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(11_000, 22_000)
        twins = (port, port + s3.ADMIN_GRPC_OFFSET) if not found else (port,)
        if port not in found and all(ports.is_free(one) for one in twins):
            found.append(port)
    return found
