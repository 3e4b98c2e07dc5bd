"""The whole service on one machine: Redis, S3, a board, API, workers and beat as children."""

from __future__ import annotations

import dataclasses
import fcntl
import http.client
import json
import os
import re
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

import redis

from exporter.config import LOCAL
from exporter.errors import ConfigurationError, ExporterError
from exporter.local import ports, s3, sample
from exporter.local.children import Child
from exporter.local.redis import RedisServer
from exporter.local.s3 import S3Server
from exporter.store.redis.api_keys import KeyRing

BUCKET = "exports"
_LAST_PORT = 65_535
_NOTE = "# Written by `exporter up`, and by the next one too unless you change it.\n"
_WORKERS = "exporter:workers:*"
_SENDERS = "exporter:senders:*"
_PIPELINE = "pipeline.sqlite"
_USER = "local"
_FIRST_TO_GO = ("api", "beat", "worker", "webhooks")


@dataclasses.dataclass(frozen=True)
class Addresses:
    """Where a running stack answers; `board_url` is None when it has no board."""

    url: str
    api_key: str
    s3_endpoint: str
    redis_url: str
    board_url: str | None


@dataclasses.dataclass(frozen=True)
class _Secrets:
    access_key: str
    secret_key: str
    board_key: str


class StoppedEarly(ExporterError):
    """The stack was told to stop while it started; nothing of it is left."""


class Stack:
    """A running service of which nothing is left when it is stopped or its process dies.

    Everything derives from `port`: the API listens on it, Redis on +1, S3 on +2, the board on
    +10, the inner services of S3 on +20 to +27 and +10020. Stacks 100 apart run side by side.
    All state is in `data_dir`, survives a restart, and is readable by its owner only, the keys
    included. `board_rows` and `board_data` say what a board that is still empty is filled with,
    `board_faults` what it does wrong.

    Start it in a thread that lives as long as the stack. ConfigurationError when the port is too
    high.
    """

    def __init__(
        self,
        data_dir: Path,
        port: int,
        workers: int,
        *,
        board: bool = True,
        board_rows: int | None = None,
        board_data: Path | None = None,
        board_faults: str | None = None,
    ) -> None:
        highest = _LAST_PORT - s3.ADMIN_GRPC - 99
        if not 1 <= port <= highest:
            raise ConfigurationError(f"Port {port}: give one from 1 to {highest} with --port.")
        self._dir = data_dir.absolute()
        self._port = port
        self._workers = workers
        self._board = board
        self._board_rows = board_rows
        self._board_data = board_data
        self._board_faults = board_faults
        self._children: list[Child] = []
        self._lock: IO[str] | None = None

    def start(self, stopping: threading.Event | None = None) -> Addresses:
        """Start all of it and return when all of it answers.

        ConfigurationError, before anything was started, when the directory or a port is in use;
        ChildError when a part ends or does not answer. Nothing is left running after an error,
        nor after StoppedEarly, which answers `stopping` being set meanwhile.
        """
        stopping = stopping or threading.Event()
        self._lock = _locked(self._dir)
        try:
            self._check_ports()
            return self._start_all(stopping)
        except BaseException:
            self.stop()
            raise

    def check(self) -> None:
        """Return when every part runs; ChildError, which names it, when one has ended."""
        for child in self._children:
            child.check()

    def stop(self) -> None:
        """End every part and return when all have ended, at most about 25 s later.

        Who does the work goes first and may still reach the stores to hand it over: API, beat
        and workers together, then the board, S3 and Redis.
        """
        first = [child for child in self._children if child.name in _FIRST_TO_GO]
        for child in first:
            child.terminate()
        rest = [child for child in reversed(self._children) if child not in first]
        for child in [*first, *rest]:
            child.stop()
        self._children.clear()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Addresses:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _check_ports(self) -> None:
        wanted = {self._port: "the API", self._port + 1: "Redis", self._port + 2: "S3"}
        if self._board:
            wanted[self._port + 10] = "the board"
        for port in (*self._side_ports, self._side_ports[0] + s3.ADMIN_GRPC):
            wanted[port] = "S3"
        for port, who in wanted.items():
            if not ports.is_free(port):
                raise ConfigurationError(
                    f"Port {port} of 127.0.0.1, wanted for {who}, is taken: end what listens "
                    f"there, or choose other ports with --port, such as --port {self._port + 100}."
                )

    @property
    def _side_ports(self) -> range:
        return range(self._port + 20, self._port + 20 + len(s3.SIDE_PORTS))

    def _start_all(self, stopping: threading.Event) -> Addresses:
        kept = _kept_secrets(self._dir / "secrets.json")
        redis_server = RedisServer(self._dir, self._port + 1)
        s3_server = S3Server(
            self._dir,
            self._port + 2,
            kept.access_key,
            kept.secret_key,
            BUCKET,
            self._side_ports,
        )
        self._bring_up([redis_server, s3_server], stopping)
        addresses = Addresses(
            url=f"http://127.0.0.1:{self._port}",
            api_key=_kept_api_key(self._dir / "api_key", redis_server.url),
            s3_endpoint=s3_server.endpoint_url,
            redis_url=redis_server.url,
            board_url=f"http://127.0.0.1:{self._port + 10}" if self._board else None,
        )
        sample.create(self._dir / _PIPELINE, _USER)
        env = self._environment(addresses, kept)
        api = ["api", "--port", str(self._port)]
        parts = [
            self._command("api", api, env, _healthy(self._port)),
            self._worker("worker", ["--concurrency", str(self._workers)], _WORKERS, env),
            self._worker("webhooks", [], _SENDERS, env),
            self._command("beat", ["beat"], env, _after(1.0)),
        ]
        if self._board:
            parts.insert(0, self._board_child(env))
        self._bring_up(parts, stopping)
        return addresses

    def _bring_up(self, children: Sequence[Child], stopping: threading.Event) -> None:
        """Start these side by side and return when all of them answer."""
        begin = time.monotonic()
        for child in children:
            self._children.append(child)
            child.launch()
        waiting = list(children)
        while waiting:
            self.check()
            for child in [child for child in waiting if child.ready()]:
                waiting.remove(child)
                _say(f"{child.name} after {time.monotonic() - begin:.1f} s; log: {child.log}")
            if waiting and stopping.wait(0.05):
                raise StoppedEarly

    def _environment(self, addresses: Addresses, kept: _Secrets) -> Mapping[str, str]:
        # A profile or session token of the caller's own cloud would spoil our key.
        env = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        env |= {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
        own = Path("exporter.toml")
        config = own.absolute() if own.exists() else _kept_config(self._dir, self._port + 10)
        env.setdefault("EXPORTER_CONFIG", str(config))
        for name in ("NO_PROXY", "no_proxy"):
            env[name] = ",".join(filter(None, [env.get(name), "127.0.0.1", "localhost"]))
        return env | {
            "EXPORTER_REDIS_URL": addresses.redis_url,
            # The caller's may name another Redis, whose workers would then hear our doorbell.
            "EXPORTER_BROKER_URL": f"{addresses.redis_url.removesuffix('/0')}/1",
            "EXPORTER_S3_ENDPOINT_URL": addresses.s3_endpoint,
            "EXPORTER_S3_BUCKET": BUCKET,
            "EXPORTER_S3_REGION": "us-east-1",
            "EXPORTER_PUBLIC_URL": addresses.url,
            "AWS_ACCESS_KEY_ID": kept.access_key,
            "AWS_SECRET_ACCESS_KEY": kept.secret_key,
            "BOARD_KEY": kept.board_key,
            "PYTHONUNBUFFERED": "1",
        }

    def _board_child(self, env: Mapping[str, str]) -> Child:
        database = str(self._dir / "board.sqlite")
        arguments = ["board", "serve", "--database", database, "--port", str(self._port + 10)]
        if self._board_rows is not None:
            arguments += ["--rows", str(self._board_rows)]
        if self._board_data is not None:
            arguments += ["--data", str(self._board_data)]
        if self._board_faults is not None:
            arguments += ["--faults", self._board_faults]
        # It answers when it has loaded its rows, of which there may be millions.
        return self._command("board", arguments, env, _healthy(self._port + 10), patience=1800.0)

    def _worker(
        self, name: str, options: list[str], presence: str, env: Mapping[str, str]
    ) -> Child:
        redis_url = env["EXPORTER_REDIS_URL"]
        with redis.Redis.from_url(redis_url) as client:
            # Workers of the run before, if it was killed, still count as alive for a while.
            for key in client.scan_iter(presence):
                client.delete(key)

        def reports() -> bool:
            try:
                with redis.Redis.from_url(redis_url) as client:
                    return any(True for _ in client.scan_iter(presence))
            except redis.RedisError:
                return False  # a dead Redis is told by check(), with its log

        return self._command(name, [name, *options], env, reports)

    def _command(
        self,
        name: str,
        arguments: list[str],
        env: Mapping[str, str],
        answers: Callable[[], bool],
        patience: float = 180.0,
    ) -> Child:
        return Child(
            name,
            [sys.executable, "-m", "exporter.cli", *arguments],
            self._dir / "logs" / f"{name}.log",
            answers=answers,
            env=env,
            patience=patience,
            grace=10.0 if name in ("worker", "webhooks") else 5.0,
        )


def run(
    data_dir: Path,
    port: int,
    workers: int,
    board: bool,
    board_rows: int | None,
    board_data: Path | None,
    board_faults: str | None = None,
) -> int:
    """Run the stack in the foreground until SIGTERM, SIGINT or SIGHUP, and return the exit code.

    0 when it was asked to end, 1 when it could not start or a part of it died; nothing is left
    running in either case. One line of JSON (`Addresses`) goes to stdout when all answer;
    everything else goes to stderr. Call it in the main thread.
    """
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: stopping.set())
    try:
        stack = Stack(
            data_dir,
            port,
            workers,
            board=board,
            board_rows=board_rows,
            board_data=board_data,
            board_faults=board_faults,
        )
        addresses = stack.start(stopping)
        try:
            sys.stdout.write(f"{json.dumps(dataclasses.asdict(addresses))}\n")
            sys.stdout.flush()
            while not stopping.wait(0.25):
                stack.check()
            _say("stopping")
        finally:
            stack.stop()
    except StoppedEarly:
        return 0
    except ExporterError as error:
        _say(str(error))
        return 1
    return 0


def _say(line: str) -> None:
    sys.stderr.write(f"exporter up: {line}\n")
    sys.stderr.flush()


def _locked(directory: Path) -> IO[str]:
    """The directory's lock file, held until it is closed; ConfigurationError when it is held."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    (directory / ".gitignore").write_text("*\n", encoding="utf-8")
    lock = (directory / "lock").open("a+", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        holder = lock.read().strip()
        lock.close()
        raise ConfigurationError(
            f"{directory} is in use by the stack of process {holder}: stop that one, or choose "
            "another directory with --data-dir."
        ) from None
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock


def _kept_secrets(path: Path) -> _Secrets:
    if not path.exists():
        new = _Secrets(secrets.token_hex(10), secrets.token_urlsafe(30), secrets.token_urlsafe(24))
        _write_private(path, json.dumps(dataclasses.asdict(new)))
    return _Secrets(**json.loads(path.read_text("utf-8")))


def _kept_api_key(path: Path, redis_url: str) -> str:
    with redis.Redis.from_url(redis_url) as client:
        ring = KeyRing(client)
        if path.exists():
            kept = path.read_text("utf-8").strip()
            if ring.find(kept) is not None:
                return kept
        new = ring.create(user=_USER, scopes=("read", "write"), name="exporter up")
    _write_private(path, f"{new}\n")
    return new


def _kept_config(directory: Path, board_port: int) -> Path:
    path = directory / "exporter.toml"
    ours = {
        r"http://127\.0\.0\.1:\d+": f"http://127.0.0.1:{board_port}",
        r'"sqlite:///.*"': json.dumps(f"sqlite:///{directory / _PIPELINE}"),
    }
    text = general = _NOTE + LOCAL
    kept = path.read_text("utf-8") if path.exists() else general
    for pattern, own in ours.items():
        text = re.sub(pattern, lambda _, own=own: own, text)  # type: ignore[misc]
        general, kept = (re.sub(pattern, "", one) for one in (general, kept))
    if kept == general:
        path.write_text(text, encoding="utf-8")
    return path


def _write_private(path: Path, text: str) -> None:
    """Replace a file as a whole, readable by its owner only from its first byte."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    new.replace(path)


def _healthy(port: int) -> Callable[[], bool]:
    def answers() -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    return answers


def _after(seconds: float) -> Callable[[], bool]:
    """For a child that nobody can ask: it is up when it has lived that long."""
    begin = time.monotonic()
    return lambda: time.monotonic() - begin >= seconds
