"""Checks of the object store, by the calls that an export makes."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus

from exporter import wiring
from exporter.cli.doctor import http_probe, storage_causes
from exporter.cli.doctor.checks import Problem
from exporter.cli.doctor.hasty_clock import HastyClock
from exporter.settings import Settings
from exporter.storage import keys
from exporter.storage.base import FileHeaders, ObjectRange
from exporter.storage.s3.storage import S3Storage

HEADERS = FileHeaders(content_type="text/plain", file_name="probe.txt")
"""Headers of the objects that checks write."""

PUBLIC = "EXPORTER_S3_PUBLIC_ENDPOINT_URL"
LINK_SECONDS = 60
_WORKS = "writes, completes, copies and deletes"


@contextmanager
def connected(settings: Settings) -> Iterator[S3Storage]:
    """Context manager for the store; raises Problem in place of each of its errors.

    Requests are repeated once at most, without a pause, so that a failure is known soon.
    """
    try:
        yield wiring.storage(settings, HastyClock())
    except Problem:
        raise
    except Exception as error:  # of botocore, too: another server answers what no S3 does
        raise storage_causes.problem(error, settings) from error


@contextmanager
def probing(settings: Settings) -> Iterator[tuple[S3Storage, str]]:
    """Context manager for a check that writes: the store, and a prefix that is cleared at the end.

    Raises Problem like `connected`.
    """
    prefix = f"{keys.ROOT}doctor-{uuid.uuid4()}/"
    with connected(settings) as storage:
        try:
            yield storage, prefix
        except BaseException:
            with suppress(Exception):  # the first failure is the one to report
                _clear(storage, prefix)
            raise
        _clear(storage, prefix)


def access(settings: Settings) -> str:
    """The credentials can list and write the bucket."""
    with connected(settings) as storage:
        storage.check()
    return f"bucket {settings.s3_bucket} can be listed and written"


def exports(settings: Settings) -> str:
    """The store runs the calls of an export: upload, complete, copy, head, delete."""
    with probing(settings) as (storage, prefix):
        keys = [f"{prefix}one", f"{prefix}two"]
        upload = storage.begin(keys[0], HEADERS)
        if upload not in {found.upload_id for found in storage.open_uploads(keys[0])}:
            raise Problem("an upload just begun is not listed")
        part = storage.put_part(keys[0], upload, 1, b"probe")
        storage.complete(keys[0], upload, [part])
        info = storage.head(keys[0])
        if info is None or info.size != len(b"probe"):
            raise Problem(f"an object just written is not shown: {info}")
        upload = storage.begin(keys[1], HEADERS)
        copied = storage.copy_part(ObjectRange(info, range(info.size)), keys[1], upload, 1)
        storage.complete(keys[1], upload, [copied])
        if storage.read(keys[1]) != b"probe":
            raise Problem("an object just copied has other bytes")
    if not storage.takes_conditions:
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


def _clear(storage: S3Storage, prefix: str) -> None:
    for upload in list(storage.open_uploads(prefix)):
        storage.abort(upload.key, upload.upload_id)
    storage.delete([found.key for found in storage.objects(prefix)])
