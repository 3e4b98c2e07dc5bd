"""Test data for every storage of multipart uploads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from exporter.clock import Clock
from exporter.storage.s3.multipart import MultipartStorage


class UploadBench(NamedTuple):
    """`tests.contract.conftest.Bench` with a storage of multipart uploads."""

    storage: MultipartStorage
    prefix: str
    get: Callable[[str], tuple[int, Mapping[str, str], bytes]]
    clock: Clock
