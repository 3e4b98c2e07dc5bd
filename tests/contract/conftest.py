"""Storages that the contract tests run against: in memory and a real S3."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import httpx
import pytest

from exporter.clock import Clock, FakeClock, SystemClock
from exporter.storage.base import Storage
from exporter.storage.memory import MemoryStorage
from exporter.storage.s3 import S3Storage

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


@pytest.fixture(params=["memory", pytest.param("s3", marks=pytest.mark.external)])
def bench(request: pytest.FixtureRequest) -> Bench:
    prefix = f"{uuid.uuid4().hex}/"
    if request.param == "memory":
        clock = FakeClock()
        memory = MemoryStorage(clock)
        return Bench(memory, prefix, memory.fetch, clock)
    return Bench(request.getfixturevalue("s3_storage"), prefix, _get, SystemClock())
