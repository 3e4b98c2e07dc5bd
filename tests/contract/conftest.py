"""Destinations that the contract tests run against: those of the registry, and moto."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
import pytest

from exporter.clock import Clock, FakeClock, SystemClock
from exporter.local import ports
from exporter.storage import registry
from exporter.storage.base import Storage
from exporter.storage.s3.storage import S3Storage
from tests.contract import folder
from tests.waiting import until

if TYPE_CHECKING:
    from tests.conftest import S3


class Bench(NamedTuple):
    """Storage under test, with a download function and its clock."""

    storage: Storage
    prefix: str
    """Key prefix of this test only, so that tests do not see each other's objects."""
    get: Callable[[str], tuple[int, Mapping[str, str], bytes]]
    """Gets a URL without additional headers; returns status, headers and body."""
    clock: Clock


def _get(url: str) -> tuple[int, Mapping[str, str], bytes]:
    answer = httpx.get(url)
    return answer.status_code, answer.headers, answer.content


@pytest.fixture(scope="session")
def s3_storage(s3_server: S3) -> Iterator[S3Storage]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", s3_server.access_key)
        patch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret_key)
        patch.delenv("AWS_SESSION_TOKEN", raising=False)
        patch.delenv("AWS_PROFILE", raising=False)
        yield S3Storage(
            s3_server.bucket,
            endpoint_url=s3_server.endpoint_url,
            public_endpoint_url=None,
            region="us-east-1",
            clock=SystemClock(),
        )


@pytest.fixture(scope="session")
def moto_storage() -> Iterator[S3Storage]:
    """Starts moto's server, a second implementation of S3, and yields a storage in it."""
    if importlib.util.find_spec("moto") is None:
        pytest.skip("moto is not installed: run ./deploy/setup")
    port = ports.find_free(1)[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "any")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "any")
        storage = _storage(f"http://127.0.0.1:{port}")
        storage.presign("any", 1)  # its client is made with these keys
    with subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        try:
            until(lambda: ports.is_listening(port), 20)
            httpx.put(f"http://127.0.0.1:{port}/exports").raise_for_status()
            yield storage
        finally:
            server.terminate()


@pytest.fixture(scope="session")
def named_storage() -> S3Storage:
    """Returns a storage in the store of TEST_S3_URL, with the keys of the AWS configuration."""
    return _storage(os.environ["TEST_S3_URL"], os.environ.get("TEST_S3_BUCKET", "exports"))


def _storage(url: str, bucket: str = "exports") -> S3Storage:
    return S3Storage(
        bucket,
        endpoint_url=url,
        public_endpoint_url=None,
        region=None,
        clock=SystemClock(),
    )


MOTO_DIFFERS: Mapping[str, str] = {
    "test_a_link_dies_at_its_expiry": "checks no expiry",
    "test_a_link_made_for_one_object_opens_no_other": "checks no signature",
    "test_copying_into_a_dead_upload_is_refused": "answers 500",
    "test_an_upload_that_was_completed_takes_no_more_parts": "answers 500",
    "test_a_discarded_file_is_gone": "answers 500",
    "test_a_file_whose_stored_bytes_are_gone_must_be_begun_again": "answers 500",
    "test_a_stopped_worker_changes_nothing_after_a_takeover": "answers 500",
    "test_an_upload_that_was_aborted_takes_no_more_parts_and_cannot_complete": "answers 500",
    "test_completing_twice_tells_so_and_leaves_the_object": "answers 200 to the second completion",
    "test_a_completion_with_a_wrong_checksum_publishes_nothing": "checks no checksum",
    "test_an_unfinished_file_is_listed_with_its_start": "says 2010 of every upload",
}
"""Tests that moto 5.2 cannot pass, with the reason."""

EXTERNAL = ("s3", "moto", *(["named"] if "TEST_S3_URL" in os.environ else []))
"""Storages in a server.

`TEST_S3_URL=https://… TEST_S3_BUCKET=… pytest tests/contract -k named` runs the contracts on
another store, with the keys, region and addressing of the AWS configuration.
"""


def storages(*inside: str) -> list[Any]:
    """Returns the parameters of a fixture that calls `bench_of`."""
    return [*inside, *(pytest.param(name, marks=pytest.mark.external) for name in EXTERNAL)]


def bench_of(request: pytest.FixtureRequest) -> Bench:
    """Returns the storage that is the parameter of a fixture."""
    prefix = f"{uuid.uuid4().hex}/"
    name = request.function.__name__
    if request.param == "moto" and name in MOTO_DIFFERS:
        pytest.skip(f"moto {MOTO_DIFFERS[name]}")
    if request.param in EXTERNAL:
        storage = request.getfixturevalue(f"{request.param}_storage")
        return Bench(storage, prefix, _get, SystemClock())
    clock = FakeClock()
    place = request.getfixturevalue("tmp_path")
    inside: Any = registry.connect(f"{request.param}:{place}", None, clock)
    return Bench(inside, prefix, inside.fetch, clock)


@pytest.fixture(params=storages(*folder.INSIDE))
def bench(request: pytest.FixtureRequest) -> Bench:
    return bench_of(request)
