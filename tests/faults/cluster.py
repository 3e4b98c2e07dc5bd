"""Runs the whole service as real processes on free ports, and injects faults into each process."""

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
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Self, cast
from unittest import mock

import httpx
import psutil
import redis

from exporter.client import Exporter
from exporter.clock import SystemClock
from exporter.local import ports, s3
from exporter.local.children import Child, ChildError
from exporter.local.redis import RedisServer
from exporter.local.s3 import S3Server
from exporter.storage.s3.storage import S3Storage
from exporter.store.redis.api_keys import KeyRing
from exporter.store.redis.store import RedisStore

LEASE = timedelta(seconds=4)
SLICE = timedelta(seconds=3)
PART_BYTES = 5 * 1024 * 1024
PAGE_ROWS = 100
PARTITION_ROWS = 3_000
"""Rows per partition; an export of at least twice as many rows is cut into partitions."""
USERS = ("ada", "bert", "cleo")
DRAIN_TIMEOUT_SECONDS = 15.0
"""Seconds after SIGTERM until a worker is killed; a drain should take at most 5 seconds."""
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
    """Redis, S3, a board, one API and some workers; all of them end with the `with` block.

    Only times and sizes differ from production: leases of 4 s, slices of 3 s, parts of 5 MiB. The
    second worker has no compiled library. Each worker is a separate process tree that runs one
    slice at a time. `supervise` restarts processes that have ended; the caller must call it a few
    times per second.

    Use a cluster only from one thread, which must live as long as the cluster.
    """

    def __init__(
        self, directory: Path, *, workers: int = 4, rows: int = 30_000, faults: str = ""
    ) -> None:
        # S3's admin port is the first, because it needs a second port, ADMIN_GRPC above.
        *side, redis_port, s3_port, board_port, api_port = _ports(len(s3.SIDE_PORTS) + 4)
        self.ended: Counter[str] = Counter()
        """Number of ended workers by reason."""
        self.drains: list[float] = []
        """Seconds from SIGTERM to the end of each worker, except drains during an outage."""
        self._terminated_at: dict[Child, float] = {}
        self._killed: set[Child] = set()
        self._ignored: set[Child] = set()
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
        # boto3, which `storage` uses, reads the S3 credentials from the environment.
        self._own_keys = mock.patch.dict(
            os.environ, {name: value for name, value in self._env.items() if name[:3] == "AWS"}
        )
        self.board = self._command(
            "board",
            [
                *("board", "serve", "--database", str(self._dir / "board.sqlite")),
                *("--rows", str(rows), "--profile", "hostile"),
                *("--port", str(board_port), "--faults", faults),
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
        self.clients: dict[str, Exporter] = {}

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
            _CONFIG.format(board=self._board_url, page=PAGE_ROWS), "utf-8"
        )
        _bring_up([self.redis, self.s3, self.board])
        ring = KeyRing(self.store.client)
        for user in USERS:
            self.clients[user] = Exporter(self.url, ring.create(user), max_retries=0)
        _bring_up([self.api, *self.workers])

    def _stop(self) -> None:
        for client in self.clients.values():
            client.close()
        self.store.client.close()
        self.broker.close()
        for child in (*self.workers, self.api, self.board, self.s3, self.redis):
            child.kill()
        self._own_keys.stop()

    # -- workers -------------------------------------------------------------------------------

    def pids(self, number: int) -> set[int]:
        """Returns the ids of a worker's running processes: the worker and its pool."""
        try:
            parent = psutil.Process(self.workers[number].pid)
            return {parent.pid, *(child.pid for child in parent.children(recursive=True))}
        except (psutil.NoSuchProcess, RuntimeError):
            return set()

    def has_lease(self, number: int) -> bool:
        """True if a worker has a lease on an export."""
        pids = self.pids(number)
        client = self.store.client
        for export_id in cast("list[bytes]", client.zrange("{exporter}:leases", 0, -1)):
            worker = cast(
                "bytes | None", client.hget(b"{exporter}:export:" + export_id, "worker_id")
            )
            if worker is not None and int(worker.rpartition(b"-")[2]) in pids:
                return True
        return False

    def kill_worker(self, number: int) -> None:
        """Sends SIGKILL to a worker's process tree; `supervise` restarts the worker."""
        child = self.workers[number]
        self._killed.add(child)
        self._forget(child)
        child.kill()

    def kill_pool(self, number: int) -> None:
        """Sends SIGKILL to the pool process only, as the kernel does when memory runs out."""
        for pid in self.pids(number) - {self.workers[number].pid}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def pause_worker(self, number: int) -> None:
        """Sends SIGSTOP to a worker's process tree."""
        child = self.workers[number]
        if _runs(child):
            self._paused.add(child)
            os.killpg(child.pid, signal.SIGSTOP)

    def continue_worker(self, number: int) -> None:
        """Sends SIGCONT to a worker's process tree, unless the worker was killed meanwhile."""
        child = self.workers[number]
        if child in self._paused:
            self._paused.discard(child)
            os.killpg(child.pid, signal.SIGCONT)

    def term_worker(self, number: int) -> None:
        """Sends SIGTERM to a worker, as a deploy does; `supervise` restarts it after its end."""
        child = self.workers[number]
        if _runs(child) and child not in self._terminated_at:
            self._terminated_at[child] = time.monotonic()
            child.terminate()

    def ignore_drain_times(self) -> None:
        """Excludes the current drains from `drains`, as an outage of Redis or S3 delays them."""
        self._ignored |= set(self._terminated_at)

    def is_paused(self, number: int) -> bool:
        return self.workers[number] in self._paused

    def is_terminating(self, number: int) -> bool:
        return self.workers[number] in self._terminated_at

    def supervise(self) -> None:
        """Restarts ended workers and the API without waiting; counts ended workers by reason."""
        for child in self.workers:
            if _runs(child):
                if (
                    time.monotonic() - self._terminated_at.get(child, time.monotonic())
                    < DRAIN_TIMEOUT_SECONDS
                ):
                    continue
                child.kill()
            self.ended[self._end_reason(child)] += 1
            self._forget(child)
            self._killed.discard(child)
            child.kill()  # ends the remaining pool processes
            child.launch()
        if not _runs(self.api):
            self.api.kill()
            self.api.launch()

    def settle(self, patience: float = 60.0) -> None:
        """Continues paused workers, and waits until every worker and the API are ready.

        Raises ChildError after `patience` seconds.
        """
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
        self._terminated_at.pop(child, None)
        self._paused.discard(child)
        self._ignored.discard(child)

    def _end_reason(self, child: Child) -> str:
        if child in self._killed:
            return "killed"
        if child not in self._terminated_at:
            return "by itself"
        took = time.monotonic() - self._terminated_at[child]
        if child in self._ignored:
            return "terminated, during an outage"
        self.drains.append(took)
        return "terminated" if took < DRAIN_TIMEOUT_SECONDS else "killed, drain timeout"

    # -- the others ----------------------------------------------------------------------------

    def kill_api(self) -> None:
        """Sends SIGKILL to the API; `supervise` restarts it."""
        self.api.kill()

    def set_faults(self, spec: str) -> None:
        """Sets the board's fault spec; an empty text means no faults."""
        httpx.post(
            f"{self._board_url}/faults",
            json={"spec": spec},
            headers={"x-api-key": self._board_key},
            timeout=10,
        ).raise_for_status()

    def delete_messages(self) -> None:
        """Deletes all doorbells on the broker and all pending wake-ups in the store."""
        self.store.client.delete("{exporter}:wake")
        for queue in self._queues():
            self.broker.delete(queue)

    def duplicate_messages(self) -> None:
        """Duplicates every doorbell on the broker."""
        for queue in self._queues():
            messages = cast("list[bytes]", self.broker.lrange(queue, 0, -1))
            if messages:
                self.broker.lpush(queue, *messages)

    def reclaim_disk(self) -> None:
        """Makes S3 free the disk space of deleted objects, which it would do too late by itself."""
        with contextlib.suppress(httpx.HTTPError):
            httpx.get(f"{self._master}/vol/vacuum?garbageThreshold=0.1", timeout=60)

    def disk(self) -> int:
        """Returns the bytes on disk under the cluster's directory."""
        size = 0
        for folder, _, names in os.walk(self._dir):
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    size += (Path(folder) / name).stat().st_blocks * 512
        return size

    def _queues(self) -> list[bytes]:
        return [
            key
            for key in cast("list[bytes]", self.broker.keys("*:exporter*"))
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
            # Runs the code next to these tests, not the tree of an editable install, which may be
            # edited during a soak test.
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "EXPORTER_CONFIG": str(self._dir / "exporter.toml"),
            "EXPORTER_REDIS_URL": self.redis.url,
            "EXPORTER_BROKER_URL": self._broker_url,
            "EXPORTER_S3_ENDPOINT_URL": self.s3.endpoint_url,
            "EXPORTER_S3_BUCKET": _BUCKET,
            "EXPORTER_PUBLIC_URL": self.url,
            "EXPORTER_LEASE_SECONDS": f"{LEASE.total_seconds():g}",
            "EXPORTER_SLICE_SECONDS": f"{SLICE.total_seconds():g}",
            "EXPORTER_PART_SIZE": str(PART_BYTES),
            "EXPORTER_PARTITION_ROWS": str(PARTITION_ROWS),
            "EXPORTER_PARTITIONS": "4",
            # Workers die far more often here than in production. test_fleet_poison tests exports
            # that kill their workers.
            "EXPORTER_MAX_ATTEMPTS": "20",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    def _command(
        self,
        name: str,
        arguments: list[str],
        answers: Callable[[], bool],
        env: Mapping[str, str] = MappingProxyType({}),
    ) -> Child:
        return Child(
            name,
            [sys.executable, "-m", "exporter.cli", *arguments],
            self._dir / "logs" / f"{name}.log",
            answers=answers,
            env={**self._env, **env},
            cwd=self._dir,
        )

    def _worker(self, number: int) -> Child:
        def reports() -> bool:
            # Checks by process id, because the presence key of a killed worker stays for a while.
            mark = f"{{exporter}}:workers:{socket.gethostname()}:{child.pid}"
            try:
                return bool(self.store.client.exists(mark))
            except redis.RedisError:
                return False

        # One worker has no compiled library, and goes on with the files of those that have it.
        library = {"EXPORTER_NATIVE": "0"} if number == 1 else {}
        arguments = ["worker", "--concurrency", "1"]
        child = self._command(f"worker-{number}", arguments, reports, library)
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
    """Returns free ports below the range of outgoing connections.

    For the first port, the port ADMIN_GRPC above is free too. The range matters: a client that
    connects to a killed server gets a local port from the system. If that were the server's own
    port, the client would connect to itself, and the server could not restart.
    """
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(11_000, 22_000)
        twins = (port, port + s3.ADMIN_GRPC_OFFSET) if not found else (port,)
        if port not in found and all(ports.is_free(one) for one in twins):
            found.append(port)
    return found
