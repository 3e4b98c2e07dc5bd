"""Runs the whole service on one machine, with each server as a child process.

The child processes are Redis, S3, the reference board, the API, the export worker, the webhook
sender and Celery beat.
"""

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

from exporter.config import LOCAL_CONFIG
from exporter.errors import ConfigurationError, ExporterError
from exporter.local import ports, private, running, s3, sample
from exporter.local.children import Child
from exporter.local.redis import RedisServer
from exporter.local.s3 import S3Server
from exporter.store.redis import keys as redis_keys
from exporter.store.redis import schema
from exporter.store.redis.api_keys import KeyRing
from exporter.store.redis.store import RedisStore

BUCKET = "exports"
SECRET_BYTES = 20
_MAX_PORT = 65_535
_CONFIG_HEADER = "# Written by `exporter up`, and by the next one too unless you change it.\n"
_PIPELINE_FILE = "pipeline.sqlite"
_USER = "local"
_DESCRIBED = frozenset(
    {
        "AWS_ACCESS_KEY_ID",
        "AWS_CONFIG_FILE",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SHARED_CREDENTIALS_FILE",
        "BOARD_KEY",
        "EXPORTER_BROKER_URL",
        "EXPORTER_CONFIG",
        "EXPORTER_PUBLIC_URL",
        "EXPORTER_REDIS_PREFIX",
        "EXPORTER_REDIS_URL",
        "EXPORTER_S3_BUCKET",
        "EXPORTER_S3_ENDPOINT_URL",
        "EXPORTER_S3_REGION",
    }
)
"""Variables that make a process part of a stack."""
_OWN = ("AWS_", "EXPORTER_REDIS_", "EXPORTER_BROKER_", "EXPORTER_S3_", "EXPORTER_PUBLIC_")
"""Beginnings of the names of variables whose values the stack replaces by its own."""
_STOPPED_FIRST = ("api", "beat", "worker", "webhooks")


@dataclasses.dataclass(frozen=True)
class Addresses:
    """The URLs and the API key of a running stack; `board_url` is None without a board."""

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
    redis_password: str


class StoppedEarly(ExporterError):
    """The stack was asked to stop during its start; all its processes have ended."""


class Stack:
    """The whole service as child processes, which end when the stack stops or its process dies.

    All ports derive from `port`: the API listens on `port`, Redis on +1, S3 on +2, the board on
    +10, and the inner services of S3 on +20 to +27 and +10020. Stacks whose ports are 100 apart can
    run side by side. All state, the keys included, is in `data_dir`; it survives a restart and only
    its owner can read it. `board_rows`, whose kind is `board_profile`, and `board_data` fill the
    board. `board_faults` makes the board return faults.

    Start the stack in a thread that lives as long as the stack.
    """

    def __init__(
        self,
        data_dir: Path,
        port: int,
        workers: int,
        *,
        board: bool = True,
        board_rows: int | None = None,
        board_profile: str | None = None,
        board_data: Path | None = None,
        board_faults: str | None = None,
    ) -> None:
        self._dir = data_dir
        self._port = port
        self._workers = workers
        self._board = board
        self._board_options = {
            "--rows": board_rows,
            "--profile": board_profile,
            "--data": board_data,
            "--faults": board_faults,
        }
        self._children: list[Child] = []
        self._lock: IO[str] | None = None

    def start(self, stopping: threading.Event | None = None) -> Addresses:
        """Starts all child processes and returns when all of them answer.

        Raises ConfigurationError, before any process is started, if the directory or a port is in
        use, or if `port` is out of range; ChildError if a child process ends or does not answer in
        time; StoppedEarly if `stopping` is set during the start. After an error no child process
        is running.
        """
        highest = _MAX_PORT - s3.ADMIN_GRPC_OFFSET - 99
        if not 1 <= self._port <= highest:
            raise ConfigurationError(
                f"Port {self._port} is out of range: give one from 1 to {highest} with --port."
            )
        self._dir = self._dir.absolute()
        stopping = stopping or threading.Event()
        self._lock = _lock_directory(self._dir)
        try:
            running.remove(self._dir)  # of a stack that was killed
            self._check_ports()
            return self._start_all(stopping)
        except BaseException:
            self.stop()
            raise

    def check(self) -> None:
        """Raises ChildError, which names the child process, if one has ended."""
        for child in self._children:
            child.check()

    def stop(self) -> None:
        """Ends all child processes and returns when all have ended, after about 25 s at most.

        API, beat and workers are stopped first and together, while Redis and S3 still run, so that
        they can release their work. Then the board, S3 and Redis are stopped.
        """
        first = [child for child in self._children if child.name in _STOPPED_FIRST]
        for child in first:
            child.terminate()
        rest = [child for child in reversed(self._children) if child not in first]
        for child in [*first, *rest]:
            child.stop()
        self._children.clear()
        if self._lock is not None:
            running.remove(self._dir)
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
        for port in (*self._side_ports, self._side_ports[0] + s3.ADMIN_GRPC_OFFSET):
            wanted[port] = "S3"
        for port, who in wanted.items():
            if not ports.is_free(port):
                raise ConfigurationError(
                    f"Port {port} of 127.0.0.1, needed for {who}, is in use: end the program that "
                    f"listens there, or choose other ports, such as --port {self._port + 100}."
                )

    @property
    def _side_ports(self) -> range:
        return range(self._port + 20, self._port + 20 + len(s3.SIDE_PORTS))

    def _start_all(self, stopping: threading.Event) -> Addresses:
        kept = load_secrets(self._dir / "secrets.json")
        redis_server = RedisServer(self._dir, self._port + 1, kept.redis_password)
        s3_server = S3Server(
            self._dir,
            self._port + 2,
            kept.access_key,
            kept.secret_key,
            BUCKET,
            self._side_ports,
        )
        self._start_and_wait([redis_server, s3_server], stopping)
        addresses = Addresses(
            url=f"http://127.0.0.1:{self._port}",
            api_key=_load_api_key(self._dir / "api_key", redis_server.url),
            s3_endpoint=s3_server.endpoint_url,
            redis_url=redis_server.url,
            board_url=f"http://127.0.0.1:{self._port + 10}" if self._board else None,
        )
        sample.create(self._dir / _PIPELINE_FILE, _USER)
        env = self._environment(addresses, kept)
        api = ["api", "--port", str(self._port)]
        parts = [
            self._command("api", api, env, _health_check(self._port)),
            self._worker("worker", ["--concurrency", str(self._workers)], redis_keys.WORKERS, env),
            self._worker("webhooks", [], redis_keys.SENDERS, env),
            self._worker("beat", [], redis_keys.BEATS, env),
        ]
        if self._board:
            parts.insert(0, self._board_child(env))
        self._start_and_wait(parts, stopping)
        described = {name: value for name, value in env.items() if name in _DESCRIBED}
        running.write(self._dir, running.Description(addresses.url, described))
        return addresses

    def _start_and_wait(self, children: Sequence[Child], stopping: threading.Event) -> None:
        """Starts these child processes together and returns when all of them answer."""
        begin = time.monotonic()
        for child in children:
            self._children.append(child)
            child.launch()
        waiting = list(children)
        while waiting:
            self.check()
            for child in [child for child in waiting if child.ready()]:
                waiting.remove(child)
                seconds = time.monotonic() - begin
                _print_status(f"{child.name} is ready after {seconds:.1f} s; log: {child.log}")
            if waiting and stopping.wait(0.05):
                raise StoppedEarly

    def _environment(self, addresses: Addresses, kept: _Secrets) -> Mapping[str, str]:
        unused = sorted(name for name in os.environ if name.startswith(_OWN))
        if unused:
            _print_status(
                f"warning: {', '.join(unused)}: without effect, this stack has its own servers "
                "and keys"
            )
        # An AWS profile or session token of the user would override the stack's own key.
        env = {name: value for name, value in os.environ.items() if not name.startswith(_OWN)}
        own = Path("exporter.toml")
        config = own.absolute() if own.exists() else _write_config(self._dir, self._port + 10)
        if not env.get("EXPORTER_CONFIG", "").strip():
            env["EXPORTER_CONFIG"] = str(config)
        return env | {
            "PYTHONUNBUFFERED": "1",
            **dict.fromkeys(("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"), os.devnull),
            "EXPORTER_REDIS_URL": addresses.redis_url,
            "EXPORTER_REDIS_PREFIX": redis_keys.DEFAULT.prefix,
            # A broker URL of the user may name another Redis, whose workers would get our tasks.
            "EXPORTER_BROKER_URL": f"{addresses.redis_url.removesuffix('/0')}/1",
            "EXPORTER_S3_ENDPOINT_URL": addresses.s3_endpoint,
            "EXPORTER_S3_BUCKET": BUCKET,
            "EXPORTER_S3_REGION": "us-east-1",
            "EXPORTER_PUBLIC_URL": addresses.url,
            "AWS_ACCESS_KEY_ID": kept.access_key,
            "AWS_SECRET_ACCESS_KEY": kept.secret_key,
            "BOARD_KEY": kept.board_key,
        }

    def _board_child(self, env: Mapping[str, str]) -> Child:
        database = str(self._dir / "board.sqlite")
        arguments = ["board", "serve", "--database", database, "--port", str(self._port + 10)]
        for name, value in self._board_options.items():
            if value is not None:
                arguments += [name, str(value)]
        # The board answers only after it has loaded its rows, of which there may be millions.
        return self._command(
            "board", arguments, env, _health_check(self._port + 10), start_timeout=1800.0
        )

    def _worker(self, name: str, options: list[str], kind: str, env: Mapping[str, str]) -> Child:
        redis_url = env["EXPORTER_REDIS_URL"]
        presence = redis_keys.DEFAULT(kind, "*")
        with redis.Redis.from_url(redis_url) as client:
            # If the previous run was killed, the presence keys of its workers are still there.
            for key in client.scan_iter(presence):
                client.delete(key)

        def reports() -> bool:
            try:
                with redis.Redis.from_url(redis_url) as client:
                    return any(True for _ in client.scan_iter(presence))
            except redis.RedisError:
                return False  # check() reports a dead Redis, with its log

        return self._command(name, [name, *options], env, reports)

    def _command(
        self,
        name: str,
        arguments: list[str],
        env: Mapping[str, str],
        answers: Callable[[], bool],
        start_timeout: float = 180.0,
    ) -> Child:
        return Child(
            name,
            [sys.executable, "-m", "exporter.cli", *arguments],
            self._dir / "logs" / f"{name}.log",
            answers=answers,
            env=env,
            start_timeout=start_timeout,
            grace=10.0 if name in ("worker", "webhooks") else 5.0,
        )


def run(stack: Stack, ready: Callable[[Addresses], None] = lambda _: None) -> int:
    """Runs the stack in the foreground until SIGTERM, SIGINT or SIGHUP; returns the exit code.

    The exit code is 0 after one of these signals, and 1 if the stack could not start or one of its
    processes ended. No child process is left running in either case. When all child processes
    answer, one line of JSON (`Addresses`) goes to stdout and `ready` is called; all other output
    goes to stderr. Call this function in the main thread.
    """
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: stopping.set())
    try:
        addresses = stack.start(stopping)
        try:
            sys.stdout.write(f"{json.dumps(dataclasses.asdict(addresses))}\n")
            sys.stdout.flush()
            ready(addresses)
            while not stopping.wait(0.25):
                stack.check()
            _print_status("stopping")
        finally:
            stack.stop()
    except StoppedEarly:
        return 0
    except (ExporterError, OSError) as error:
        _print_status(str(error))
        return 1
    return 0


def _print_status(line: str) -> None:
    sys.stderr.write(f"exporter up: {line}\n")
    sys.stderr.flush()


def _lock_directory(directory: Path) -> IO[str]:
    """Locks the directory and returns the lock file; closing that file releases the lock.

    Creates the directory if needed; only its owner can read it. Raises ConfigurationError if
    another process has the lock.
    """
    private.make_folder(directory)
    (directory / ".gitignore").write_text("*\n", encoding="utf-8")
    lock = (directory / "lock").open("a+", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        holder = lock.read().strip()
        lock.close()
        raise ConfigurationError(
            f"{directory} is in use by the stack of process {holder}: end that stack with "
            "`exporter down`, or choose another directory with --data-dir."
        ) from None
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock


def load_secrets(path: Path) -> _Secrets:
    """Returns the secrets stored at `path`; creates and stores those that are missing."""
    kept = json.loads(path.read_text("utf-8")) if path.exists() else {}
    names = [field.name for field in dataclasses.fields(_Secrets)]
    found = {name: kept.get(name) or secrets.token_hex(SECRET_BYTES) for name in names}
    if found != kept:
        private.write_file(path, json.dumps(found))
    return _Secrets(**found)


def _load_api_key(path: Path, redis_url: str) -> str:
    """Returns the API key stored at `path`, or a new one if Redis does not have that key."""
    with redis.Redis.from_url(redis_url) as client:
        # Forced: this stack has no other processes, but their presence may be 15 s old.
        if schema.upgrade(client, redis_keys.DEFAULT, force=True):
            RedisStore(client, redis_keys.DEFAULT).mend_lists()
        ring = KeyRing(client, redis_keys.DEFAULT)
        if path.exists():
            kept = path.read_text("utf-8").strip()
            if ring.find(kept) is not None:
                return kept
        new = ring.create(user=_USER, scopes=("read", "write"), name="exporter up")
    private.write_file(path, f"{new}\n")
    return new


def _write_config(directory: Path, board_port: int) -> Path:
    """Returns the path of the stack's exporter.toml; writes the file unless a user has changed it.

    Ports and the database path do not count as changes.
    """
    path = directory / "exporter.toml"
    ours = {
        r"http://127\.0\.0\.1:\d+": f"http://127.0.0.1:{board_port}",
        r'"sqlite:///.*"': json.dumps(f"sqlite:///{directory / _PIPELINE_FILE}"),
    }
    text = general = _CONFIG_HEADER + LOCAL_CONFIG
    kept = path.read_text("utf-8") if path.exists() else general
    for pattern, own in ours.items():
        text = re.sub(pattern, lambda _, own=own: own, text)  # type: ignore[misc]
        general, kept = (re.sub(pattern, "", one) for one in (general, kept))
    if kept == general:
        private.write_file(path, text)
    return path


def _health_check(port: int) -> Callable[[], bool]:
    """Returns a function that is True if GET /health on the port answers 200 now."""

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
