"""The contract of multipart uploads, on the real S3 with the rules of another store."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest

from exporter.clock import SystemClock
from exporter.storage.s3.storage import S3Storage
from tests.contract.uploads.given import UploadBench
from tests.contract.uploads.test_uploads import *  # noqa: F403 - its tests, with the bench below
from tests.store_rules import StoreRules

del test_open_uploads_lists_every_upload_that_has_not_ended  # noqa: F821


@pytest.fixture(params=["b2", "r2"])
def bench(
    request: pytest.FixtureRequest,
    ruled: Callable[[str], StoreRules],
    storage_at: Callable[..., S3Storage],
) -> UploadBench:
    storage = storage_at(ruled(request.param).url)
    return UploadBench(storage, f"{uuid.uuid4().hex}/", lambda _: (404, {}, b""), SystemClock())
