"""Real servers for the tests: one Redis and one S3, started once, on free ports."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import structlog

from exporter.local import ports
from exporter.local.redis import RedisServer
from exporter.local.s3 import S3Server
from exporter.local.stack import Addresses, Stack
from tests import postgres


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis of this test run's own; each user takes a database number and flushes it."""
    with RedisServer(tmp_path_factory.mktemp("redis"), ports.find_free(1)[0]) as server:
        yield server


class S3(NamedTuple):
    """A running S3 and the only key it knows."""

    endpoint_url: str
    access_key: str
    secret_key: str
    bucket: str


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """An S3 of this test run's own."""
    access_key, secret_key, bucket = "AK" + secrets.token_hex(8), secrets.token_hex(16), "exports"
    directory: Path = tmp_path_factory.mktemp("s3")
    with S3Server(directory, ports.find_free(1)[0], access_key, secret_key, bucket) as server:
        yield S3(server.endpoint_url, access_key, secret_key, bucket)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a PostgreSQL of this test run's own."""
    with postgres.running() as url:
        yield url


@pytest.fixture(scope="module")
def postgres_url(postgres_server: str) -> str:
    """The URL of a database that no other module of tests sees."""
    return postgres.database(postgres_server)


@pytest.fixture(autouse=True)
def _quiet() -> None:
    """Logs are for operators; a test that reads them captures them itself."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


BOARD_ROWS = 2_000


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Addresses]:
    """The whole service on real servers: API, workers, board with synthetic postings."""
    directory = tmp_path_factory.mktemp("stack")
    with Stack(directory, ports.find_base(), 2, board_rows=BOARD_ROWS) as addresses:
        yield addresses
