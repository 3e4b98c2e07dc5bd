"""Fixtures: the real S3 behind the rules of another store, and an S3Storage for it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from exporter.clock import FakeClock
from exporter.storage.base import FileHeaders
from exporter.storage.s3.storage import S3Storage
from tests.store_rules import StoreRules, resolve

if TYPE_CHECKING:
    from tests.conftest import S3

CSV = FileHeaders("text/csv", "postings.csv")


@pytest.fixture(autouse=True)
def _keys(s3_keys: S3) -> None:
    """Gives each test the credentials of the real S3."""


@pytest.fixture
def ruled(s3_server: S3) -> Iterator[Callable[[str], StoreRules]]:
    """Starts a store with the rules of a profile, by its name; names below localhost resolve."""
    with ExitStack() as running:
        running.enter_context(resolve.localhost())

        def start(profile: str) -> StoreRules:
            return running.enter_context(
                StoreRules(
                    profile, s3_server.endpoint_url, s3_server.access_key, s3_server.secret_key
                )
            )

        yield start


@pytest.fixture
def storage_at(s3_server: S3) -> Callable[..., S3Storage]:
    """Makes an S3Storage for a URL."""

    def make(url: str, **options: Any) -> S3Storage:
        return S3Storage(
            s3_server.bucket,
            endpoint_url=url,
            public_endpoint_url=options.pop("public_endpoint_url", None),
            region="us-east-1",
            clock=FakeClock(),
            **options,
        )

    return make


@pytest.fixture
def key() -> str:
    return f"{uuid.uuid4().hex}/postings.csv"
