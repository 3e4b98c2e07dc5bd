"""Checks of the object store, by the calls that an export makes."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus

from exporter import wiring
from exporter.cli.doctor import http_probe, storage_causes
from exporter.cli.doctor.checks import Problem
from exporter.clock import SystemClock
from exporter.core.checkpoints import FileState
from exporter.settings import Settings
from exporter.storage import keys
from exporter.storage.base import FileHeaders, FileWriter, ObjectRange, Storage
from exporter.storage.s3.storage import S3Storage

HEADERS = FileHeaders(content_type="text/plain", file_name="probe.txt")
"""Headers of the objects that checks write."""

PUBLIC = "EXPORTER_S3_PUBLIC_ENDPOINT_URL"
LINK_SECONDS = 60
_WORKS = "writes, completes, copies and deletes"


class _HastyClock(SystemClock):
    """The machine's clock, but a pause takes no time and counts as more than an hour.

    So a request that fails is repeated once, and its cause is known before the check's deadline.
    """

    def __init__(self) -> None:
        self._paused = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self._paused

    def sleep(self, seconds: float) -> None:
        self._paused += 3600.0 + seconds


@contextmanager
def connected(settings: Settings) -> Iterator[Storage]:
    """Context manager for the store; raises Problem in place of each of its errors."""
    try:
        yield wiring.storage(settings, _HastyClock())
    except Problem:
        raise
    except Exception as error:  # of botocore, too: another server answers what no S3 does
        raise storage_causes.problem(error, settings) from error


@contextmanager
def probing(settings: Settings) -> Iterator[tuple[Storage, str]]:
    """Context manager for a check that writes: the store, and a prefix that is cleared at the end.

    Raises Problem like `connected`.
    """
    prefix = f"{keys.ROOT}doctor-{uuid.uuid4()}/"
    with connected(settings) as storage:
        try:
            yield storage, prefix
        except BaseException:
            with suppress(Exception):  # the first failure is the one to report
                storage.delete_all(prefix)
            raise
        storage.delete_all(prefix)


def access(settings: Settings) -> str:
    """The credentials can list and write the bucket."""
    with connected(settings) as storage:
        storage.check()
    return f"bucket {settings.s3_bucket} can be listed and written"


def exports(settings: Settings) -> str:
    """The store runs the calls of an export: upload, complete, copy, head, delete."""
    with probing(settings) as (storage, prefix):
        first, second = (_file(storage, prefix, fence) for fence in ("one", "two"))
        store = first.append(bytearray(b"probe"))
        if first.key not in {found.key for found in storage.unfinished(prefix)}:
            raise Problem("an upload just begun is not listed")
        store()
        first.publish()
        info = storage.head(first.key)
        if info is None or info.size != len(b"probe"):
            raise Problem(f"an object just written is not shown: {info}")
        second.copy([ObjectRange(info, range(info.size))])()
        second.publish()
        if storage.read(second.key) != b"probe":
            raise Problem("an object just copied has other bytes")
    if isinstance(storage, S3Storage) and not storage.takes_conditions:
        return f"{_WORKS}; it has no If-None-Match, so a key is looked up before it is written"
    return _WORKS


def link(settings: Settings) -> str:
    """A download link leads to the object, through the address that callers use."""
    body = b"probe"
    with probing(settings) as (storage, prefix):
        key = f"{prefix}link"
        storage.put_small(key, body, HEADERS)
        url = storage.presign(key, LINK_SECONDS)
        where = http_probe.place(url)
        answer = http_probe.get(url, PUBLIC, "give the address at which callers reach the store")
    if answer.status_code == HTTPStatus.FORBIDDEN:
        raise Problem(
            f"{where} rejects the signature of a download link",
            variable=PUBLIC,
            remedy="write the address as callers send it, or let the proxy pass on the Host header",
        )
    if answer.status_code != HTTPStatus.OK or answer.content != body:
        raise Problem(
            f"{where} answers HTTP {answer.status_code} to a download link, not with the object",
            variable=PUBLIC,
            remedy="give an address that leads to the object store",
        )
    return f"a file can be downloaded from {where}"


def _file(storage: Storage, prefix: str, fence: str) -> FileWriter:
    return storage.open_file(prefix, fence, HEADERS, FileState(), piece_bytes=len(b"probe"))
