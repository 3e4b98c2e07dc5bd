"""Deletes expired files, objects of deleted exports, and leftovers of crashes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from functools import partial
from itertools import islice
from typing import TypeVar

import msgspec
import structlog

from exporter.clock import Clock
from exporter.core.exports import Export
from exporter.errors import StorageUnavailable, StoreUnavailable
from exporter.storage import keys
from exporter.storage.base import Storage
from exporter.store.base import ExportStore, Unreadable

log = structlog.get_logger()

BATCH_SIZE = 100
"""Number of objects or exports that one request handles."""
STEP_SECONDS = 20.0
"""Time limit of each step of a cleaning.

A step that is not finished continues in the next cleaning; with the limit, every step gets its
turn.
"""
MAX_OBJECTS_PER_RUN = 10_000
"""Number of objects of the bucket that one cleaning compares with the records."""

USERS_PER_TRIM = 10
"""Number of users whose lists one call trims; Redis serves no other request meanwhile."""

_Value = TypeVar("_Value")


class Cleaned(msgspec.Struct, frozen=True):
    """Numbers of things that one cleaning has removed."""

    files: int
    """Number of files whose retention had ended."""
    uploads: int
    """Number of unfinished files that belonged to no running export."""
    deleted: int = 0
    """Number of exports, deleted by their owners, whose objects were removed."""
    strays: int = 0
    """Number of objects that belonged to no published file and no running export."""


def clean(
    store: ExportStore,
    storage: Storage,
    clock: Clock,
    *,
    grace: timedelta,
    retention: timedelta = timedelta(days=7),
) -> Cleaned:
    """Removes all objects and unfinished files in the storage that are no longer needed.

    These are files past their retention, objects of deleted exports, unfinished files whose export
    is not running, and stray objects, which belong to no published file and no running export.

    Each step has a time limit and continues in the next run; runs may overlap. An unfinished file
    younger than `grace` is kept, because the first checkpoint of its export may not be stored yet.
    One run checks MAX_OBJECTS_PER_RUN objects for strays: a bucket of a million objects takes 100
    runs.
    Objects of exports without a record are deleted only if the store's first export is at least
    `retention` old. Otherwise the store may be a Redis that started empty, or the wrong Redis; it
    knows no file, and all files would be deleted.

    Raises StoreUnavailable or StorageUnavailable if one of them does not answer; what was removed
    before stays removed.
    """

    def in_time() -> Callable[[], bool]:
        ends_at = clock.monotonic() + STEP_SECONDS
        return lambda: clock.monotonic() < ends_at

    cleaned = Cleaned(
        deleted=_purge_deleted(store, storage, in_time()),
        files=_delete_files(store, storage, in_time()),
        uploads=_discard_unfinished(store, storage, clock, grace, in_time()),
        strays=_delete_strays(store, storage, clock, retention, in_time()),
    )
    _trim_lists(store, in_time())
    if cleaned != Cleaned(files=0, uploads=0):
        log.info("cleaning.done", **msgspec.structs.asdict(cleaned))
    return cleaned


def purge(store: ExportStore, storage: Storage, export_id: str) -> bool:
    """Removes all objects of a deleted export; returns True.

    Returns False if another process has already recorded that the objects are removed. Repeating
    the call changes nothing. Raises StorageUnavailable or StoreUnavailable if one of them does not
    answer; the next cleaning then tries again.
    """
    storage.delete_all(keys.prefix(export_id))
    return store.forget_deleted(export_id)


def _contained(export_id: str, work: Callable[[], object]) -> None:
    """Does the work for one export.

    An unexpected error is logged, so that other exports are cleaned. Objects that stay in the
    bucket because of it are deleted later as strays. Raises StoreUnavailable or StorageUnavailable.
    """
    try:
        work()
    except (StoreUnavailable, StorageUnavailable):
        raise
    except Exception:
        log.exception("cleaning.failed", export_id=export_id)


def _purge_deleted(store: ExportStore, storage: Storage, in_time: Callable[[], bool]) -> int:
    purged = 0
    while in_time() and (gone := store.deleted_exports(limit=BATCH_SIZE)):
        for export_id in gone:
            _contained(export_id, partial(storage.delete_all, keys.prefix(export_id)))
        purged += sum(store.forget_deleted(export_id) for export_id in gone)
    return purged


def _delete_files(store: ExportStore, storage: Storage, in_time: Callable[[], bool]) -> int:
    files = 0
    while in_time() and (expired := store.expired_files(limit=BATCH_SIZE)):
        storage.delete([export.result.key for export in expired if export.result is not None])
        for export in expired:
            if not export.readable:  # its record does not say which object is the file
                _contained(export.id, partial(storage.delete_all, keys.prefix(export.id)))
        forgotten = sum(store.forget_file(export.id) for export in expired)
        _count(store, "files_cleaned", forgotten)
        files += forgotten
    return files


def _discard_unfinished(
    store: ExportStore,
    storage: Storage,
    clock: Clock,
    grace: timedelta,
    in_time: Callable[[], bool],
) -> int:
    discarded = 0
    for file in storage.unfinished(keys.ROOT):
        if not in_time():
            break
        if clock.now() - file.started_at < grace:
            continue
        owner = _find(store, _owner(file.key))
        if owner is None or (owner.readable and owner.terminal):
            storage.discard(file)
            discarded += 1
    _count(store, "uploads_cleaned", discarded)
    return discarded


def _delete_strays(
    store: ExportStore,
    storage: Storage,
    clock: Clock,
    retention: timedelta,
    in_time: Callable[[], bool],
) -> int:
    """Deletes stray objects, beginning at the position in the bucket where the last run stopped."""
    since = store.queue_counts().since
    knows_all = since is not None and clock.now() - since >= retention

    def wanted(key: str, owner: Export | None) -> bool:
        if owner is None:
            return not knows_all
        if not owner.readable:
            return True
        if not owner.terminal or owner.result is None or owner.file_expires_at is None:
            return not owner.terminal
        return key == owner.result.key and clock.now() < owner.file_expires_at

    place = store.cleanup_cursor()
    walked = strays = 0
    for batch in _batches(_keys_after(storage, place)):
        owners = {one: _find(store, one) for one in set(map(_owner, batch))}
        stale = [key for key in batch if not wanted(key, owners[_owner(key)])]
        storage.delete(stale)
        _count(store, "strays_cleaned", len(stale))
        strays += len(stale)
        walked += len(batch)
        store.set_cleanup_cursor(batch[-1])
        if walked >= MAX_OBJECTS_PER_RUN or not in_time():
            return strays
    store.set_cleanup_cursor("")
    return strays


def _keys_after(storage: Storage, place: str) -> Iterator[str]:
    """Yields the object keys of exports that come after the key `place`, in order.

    Keys are listed by the first two hexadecimal digits of the export id, so that at most 1/256 of
    the bucket is listed again before the first key is found.
    """
    digits = place.removeprefix(keys.ROOT)[:2]
    for digit in range(int(digits or "0", 16), 256):
        for info in storage.objects(f"{keys.ROOT}{digit:02x}"):
            if info.key > place:
                yield info.key


def _trim_lists(store: ExportStore, in_time: Callable[[], bool]) -> None:
    while in_time() and store.trim_lists(users=USERS_PER_TRIM):
        pass


def _find(store: ExportStore, export_id: str) -> Export | None:
    try:
        return store.get(export_id)
    except Unreadable as error:
        return error.shown


def _owner(key: str) -> str:
    return key.removeprefix(keys.ROOT).partition("/")[0]


def _count(store: ExportStore, what: str, by: int) -> None:
    if by:
        store.count(what, by)


def _batches(values: Iterable[_Value]) -> Iterator[list[_Value]]:
    values = iter(values)
    while batch := list(islice(values, BATCH_SIZE)):
        yield batch
