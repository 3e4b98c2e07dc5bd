"""Fixtures for all tests: real Redis, S3 and PostgreSQL servers, started once, on free ports."""

from __future__ import annotations

import logging
import os
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple, cast

import pytest
import structlog

from exporter.local import ports
from exporter.local.redis import RedisServer
from exporter.local.s3 import S3Server
from exporter.local.stack import Addresses, Stack
from tests import fast, postgres

GIVEN_REDIS = os.environ.pop("EXPORTER_TEST_REDIS_URL", None)
"""A server to use instead of an own one, such as `redis://127.0.0.1:6379/0`; its data is deleted.

It is taken out of the environment, in which processes of the service warn of unknown settings.
"""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fast", action="store_true", help="Only tests that need nothing outside their process."
    )


def pytest_configure(config: pytest.Config) -> None:
    # A shell starts what it does not wait for with Ctrl-C ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getoption("--fast"):
        fast.begin()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        fast.mark(item)
    if config.getoption("--fast"):
        left_out = [item for item in items if item.get_closest_marker("external")]
        items[:] = [item for item in items if not item.get_closest_marker("external")]
        config.hook.pytest_deselected(items=left_out)


@pytest.fixture(autouse=True)
def _alone(request: pytest.FixtureRequest) -> Iterator[None]:
    """With --fast nothing outside this process can be used."""
    if not request.config.getoption("--fast"):
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        fast.forbid(patch)
        yield


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Starts a Redis for this test run; each user chooses a database number and flushes it.

    With EXPORTER_TEST_REDIS_URL, that server is used instead: for the contract of the stores.
    """
    if GIVEN_REDIS is not None:
        yield cast("RedisServer", SimpleNamespace(url=GIVEN_REDIS))
        return
    with RedisServer(tmp_path_factory.mktemp("redis"), ports.find_free(1)[0]) as server:
        yield server


class S3(NamedTuple):
    """Address of a running S3 server and its only access key."""

    endpoint_url: str
    access_key: str
    secret_key: str
    bucket: str


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """Starts an S3 server for this test run."""
    access_key, secret_key, bucket = "AK" + secrets.token_hex(8), secrets.token_hex(16), "exports"
    directory: Path = tmp_path_factory.mktemp("s3")
    with S3Server(directory, ports.find_free(1)[0], access_key, secret_key, bucket) as server:
        yield S3(server.endpoint_url, access_key, secret_key, bucket)


@pytest.fixture
def s3_keys(s3_server: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    """Puts the credentials of the S3 server, and no others, into the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret_key)
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    return s3_server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """Starts a PostgreSQL for this test run and yields its URL."""
    with postgres.running() as url:
        yield url


@pytest.fixture(scope="module")
def postgres_url(postgres_server: str) -> str:
    """Returns the URL of a new database for one test module."""
    return postgres.database(postgres_server)


@pytest.fixture(autouse=True)
def _quiet() -> None:
    """Disables log output; a test that checks logs captures them itself."""
    # The test before may have logged to its own captured stderr, which is closed by now.
    structlog.reset_defaults()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


BOARD_ROWS = 2_000


@pytest.fixture(scope="session")
def stack_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the working directory of the local stack, whose state is in `.exporter`."""
    return tmp_path_factory.mktemp("stack")


@pytest.fixture(scope="session")
def stack(stack_home: Path) -> Iterator[Addresses]:
    """Starts the whole service on real servers: API, workers, board with hostile postings."""
    directory = stack_home / ".exporter"
    with Stack(
        directory, ports.find_base(), 2, board_rows=BOARD_ROWS, board_profile="hostile"
    ) as addresses:
        yield addresses
