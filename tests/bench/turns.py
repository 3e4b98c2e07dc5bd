"""One turn of one contestant: its processes, its order, its costs."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from exporter import wiring
from exporter.config import Config
from exporter.service.drafts import NewExport
from exporter.service.exports import ExportService
from exporter.settings import Settings
from exporter.store.redis.store import RedisStore
from tests.bench.contestants import COLUMNS, Contestant
from tests.bench.servers import BUCKET, ROOT, Servers
from tests.bench.starting import Order
from tests.bench.upstream import PAGE

PATIENCE = 120.0
SLOWEST = 250.0
"""A process is thought to hang when it takes longer than the first of these, in seconds, and a
second more for as many rows as the second says."""
SOURCE = "bench"


class TurnFailed(Exception):
    """A contestant did not finish; the text holds the end of what it said."""


class Turn(NamedTuple):
    """What one run took."""

    rows: int
    seconds: float
    """From the order to the published file; start of processes and imports before it aside."""
    cpu: float
    """Seconds of all its processes."""
    peaks: tuple[int, ...]
    """Bytes that each of its processes held at most."""
    size: int
    """Bytes of all that it wrote."""
    servers: tuple[float, float]
    """Seconds of CPU that the upstream and the S3 used meanwhile."""
    told: dict[str, Any]
    """What else the first process said."""


class Track:
    """Where turns are run."""

    def __init__(self, servers: Servers, directory: Path, peers: str, *, in_flight: int) -> None:
        """`peers` is the interpreter for everybody but our own workers, each of which asks for
        `in_flight` pages at once."""
        self.servers = servers
        self._directory = directory
        self._peers = peers
        self._in_flight = in_flight

    def run(
        self, contestant: Contestant, format_: str, rows: int, *arguments: str, keep: bool = False
    ) -> Turn:
        """Run it once and delete what it wrote, unless `keep` says otherwise. Raises TurnFailed."""
        scratch = Path(tempfile.mkdtemp(dir=self._directory))
        order = Order(
            pages=f"{self.servers.upstream}/{rows}",
            rows=rows,
            page=PAGE,
            format=format_,
            columns=list(COLUMNS),
            endpoint=self.servers.endpoint,
            bucket=BUCKET,
            # Never twice the same: what was a folder to one may not become a file to the next.
            key=f"{contestant.name}-{uuid.uuid4()}",
            scratch=str(scratch),
        )
        try:
            if contestant.ours:
                return self._work(order, contestant, scratch, arguments)
            env, used = self.servers.environment, self.servers.used()
            python = sys.executable if contestant.here else self._peers
            with _process(python, contestant.module, env, rows, *contestant.arguments) as peer:
                peer.say(order)
                told = peer.hear()
            return self._turn(order, told["ended"] - told["began"], used, [told])
        finally:
            if not keep:
                self.servers.empty()
            shutil.rmtree(scratch)

    def _work(
        self, order: Order, contestant: Contestant, scratch: Path, arguments: Sequence[str]
    ) -> Turn:
        config = scratch / "exporter.toml"
        config.write_text(
            f'[sources.{SOURCE}]\ntype = "hirebase"\nbase_url = "{order.pages}"\n'
            f"page_size = {PAGE}\nmax_in_flight = {self._in_flight}\n"
        )
        env = {
            **self.servers.environment,
            "EXPORTER_CONFIG": str(config),
            "EXPORTER_REDIS_URL": self.servers.redis_url,
            "EXPORTER_S3_ENDPOINT_URL": self.servers.endpoint,
            "EXPORTER_S3_BUCKET": BUCKET,
        }
        if contestant.workers > 1:
            # Ranges enough for all, so that none is idle at the end for long.
            env["EXPORTER_PARTITION_ROWS"] = str(max(order.rows // (2 * contestant.workers), PAGE))
        used = self.servers.used()
        with contextlib.ExitStack() as stack:
            processes = [
                stack.enter_context(
                    _process(sys.executable, contestant.module, env, order.rows, *arguments)
                )
                for _ in range(contestant.workers)
            ]
            engine = self._engine(order)
            began = time.monotonic()
            export_id = self._create(engine, order)
            for process in processes:
                process.say(order._replace(export_id=export_id))
            told = [process.hear() for process in processes]
        # Whichever process sees the end first, sees it within milliseconds.
        ended = min(one["ended"] for one in told)
        return self._turn(order, ended - began, used, told)

    def _turn(
        self,
        order: Order,
        seconds: float,
        used: tuple[float, float],
        told: Sequence[dict[str, Any]],
    ) -> Turn:
        upstream, s3 = self.servers.used()
        return Turn(
            order.rows,
            seconds,
            sum(one["cpu"] for one in told),
            tuple(one["peak"] for one in told),
            self.servers.written(),
            (upstream - used[0], s3 - used[1]),
            told[0],
        )

    def _engine(self, order: Order) -> ExportService:
        settings = Settings(
            redis_url=self.servers.redis_url,
            s3_endpoint_url=self.servers.endpoint,
            s3_bucket=BUCKET,
        )
        source = {"type": "hirebase", "base_url": order.pages, "page_size": PAGE}
        engine = ExportService(
            settings=settings,
            config=Config.model_validate({"sources": {SOURCE: source}}),
            store=RedisStore.connect(settings.redis_url),
            storage=wiring.storage(settings),
        )
        # Connections are open long before somebody asks for an export.
        engine.store.get("none")
        return engine

    def _create(self, engine: ExportService, order: Order) -> str:
        new = NewExport(
            user_id="bench",
            surface="native",
            source=SOURCE,
            search={},
            format="csv" if order.plain == "csv" else "json",
            columns=order.columns if order.plain == "csv" else None,
            compression="gzip" if order.packed else "none",
        )
        return engine.create(new).id


class _Process:
    """A contestant's process that has imported what it needs."""

    def __init__(self, process: subprocess.Popen[str], log: IO[str]) -> None:
        self._process = process
        self._log = log
        self._line()

    def say(self, order: Order) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order._asdict()) + "\n")
        self._process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self._line())
        return told

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._log.seek(0)
            said = self._log.read().strip().splitlines()[-15:]
            how = f"exit status {self._process.returncode}"
            if self._process.returncode == -signal.SIGKILL:
                how = "killed, from outside or because it took too long"
            raise TurnFailed("\n".join([*said, how]))
        return line


@contextlib.contextmanager
def _process(
    python: str, module: str, env: dict[str, str], rows: int, *arguments: str
) -> Iterator[_Process]:
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        process = subprocess.Popen(
            [python, "-m", module, *arguments],
            cwd=ROOT,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        # A process that hangs would hold the whole session: the end of its output wakes the reader.
        watchdog = threading.Timer(PATIENCE + rows / SLOWEST, process.kill)
        watchdog.start()
        try:
            with process:
                try:
                    yield _Process(process, log)
                except BaseException:
                    process.kill()
                    raise
        finally:
            watchdog.cancel()
