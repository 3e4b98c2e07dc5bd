"""Fixtures: an S3Storage that reaches a real S3 through a faulty proxy."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from exporter.clock import FakeClock
from exporter.storage.base import FileHeaders
from exporter.storage.s3.storage import S3Storage
from tests.integration.faulty_s3 import FaultyS3

if TYPE_CHECKING:
    from tests.conftest import S3

CSV = FileHeaders("text/csv", "postings.csv")


@pytest.fixture(autouse=True)
def _keys(s3_keys: S3) -> None:
    """Gives each test the credentials of the real S3."""


@pytest.fixture
def proxy(s3_server: S3) -> Iterator[FaultyS3]:
    with FaultyS3(s3_server.endpoint_url) as server:
        yield server


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def storage(proxy: FaultyS3, s3_server: S3, clock: FakeClock) -> S3Storage:
    return S3Storage(
        s3_server.bucket,
        endpoint_url=proxy.url,
        public_endpoint_url=None,
        region="us-east-1",
        clock=clock,
    )


@pytest.fixture
def key() -> str:
    return f"{uuid.uuid4().hex}/postings.csv"
