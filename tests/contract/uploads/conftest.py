"""Storages whose files are multipart uploads."""

from __future__ import annotations

from typing import cast

import pytest

from tests.contract.conftest import bench_of, storages
from tests.contract.uploads.given import UploadBench


@pytest.fixture(params=storages("memory"))
def bench(request: pytest.FixtureRequest) -> UploadBench:
    return cast("UploadBench", bench_of(request))
