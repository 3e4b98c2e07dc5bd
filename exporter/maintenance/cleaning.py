"""Deleting what nobody may download any more, and what a crash left behind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from itertools import islice
from typing import TypeVar

import msgspec
import structlog

from exporter.clock import Clock
from exporter.core.exports import Export
from exporter.storage import keys
from exporter.storage.base import Storage
from exporter.store.base import ExportStore

log = structlog.get_logger()

BATCH = 100
STEP = 20.0
"""Seconds after which a step leaves the rest to the next run, so that each gets its turn."""
WALKED = 10_000
"""Objects of the bucket that one run looks at, for each of which it asks the store."""

USERS = 10
"""Users whose lists are trimmed at once; Redis does nothing else meanwhile."""

_Value = TypeVar("_Value")


class Cleaned(msgspec.Struct, frozen=True):
    """What one cleaning removed."""

    files: int
    """Past their retention."""
    uploads: int
    """Without a living export."""
    deleted: int = 0
    """Exports that their owners deleted, whose objects went now."""
    strays: int = 0
    """Objects that are nobody's file."""


def clean(
    store: ExportStore,
    storage: Storage,
    clock: Clock,
    *,
    grace: timedelta,
    retention: timedelta = timedelta(days=7),
) -> Cleaned:
    """Remove what nobody can ask for any more: files past their retention, objects of deleted
    exports, uploads whose export lives no more, and objects that are no published file.

    Each step is bounded in time, and goes on in the next run; any number of runs may overlap. An
    upload younger than `grace` is left alone: its export's first checkpoint may be on its way.
    Objects are looked at `WALKED` a run: a bucket of a million is gone through in 100 runs. Those
    of unknown exports go only once the store has known all for `retention`: a Redis that started
    empty, or that is the wrong one, knows of no file and must not delete them all.

    Raises StoreUnavailable or StorageUnavailable; what was done until then stays done.
    """

    def in_time() -> Callable[[], bool]:
        ends_at = clock.monotonic() + STEP
        return lambda: clock.monotonic() < ends_at

    cleaned = Cleaned(
        deleted=_purge_deleted(store, storage, in_time()),
        files=_delete_files(store, storage, in_time()),
        uploads=_abort_uploads(store, storage, clock, grace, in_time()),
        strays=_walk(store, storage, clock, retention, in_time()),
    )
    _trim_lists(store, in_time())
    if cleaned != Cleaned(files=0, uploads=0):
        log.info("cleaning.done", **msgspec.structs.asdict(cleaned))
    return cleaned


def purge(store: ExportStore, storage: Storage, export_id: str) -> bool:
    """Remove all that a deleted export left in the bucket; False if another did so before.

    Safe to run again. Raises StorageUnavailable or StoreUnavailable; it is then tried again by the
    next cleaning.
    """
    root = keys.prefix(export_id)
    for upload in storage.open_uploads(root):
        storage.abort(upload.key, upload.upload_id)
    for batch in _batches(info.key for info in storage.objects(root)):
        storage.delete(batch)
    return store.forget_deleted(export_id)


def _purge_deleted(store: ExportStore, storage: Storage, in_time: Callable[[], bool]) -> int:
    purged = 0
    while in_time() and (gone := store.deleted_exports(limit=BATCH)):
        purged += sum(purge(store, storage, export_id) for export_id in gone)
    return purged


def _delete_files(store: ExportStore, storage: Storage, in_time: Callable[[], bool]) -> int:
    files = 0
    while in_time() and (expired := store.expired_files(limit=BATCH)):
        storage.delete([export.result.key for export in expired if export.result is not None])
        forgotten = sum(store.forget_file(export.id) for export in expired)
        _count(store, "files_cleaned", forgotten)
        files += forgotten
    return files


def _abort_uploads(
    store: ExportStore,
    storage: Storage,
    clock: Clock,
    grace: timedelta,
    in_time: Callable[[], bool],
) -> int:
    aborted = 0
    for upload in storage.open_uploads(keys.ROOT):
        if not in_time():
            break
        if clock.now() - upload.started_at < grace:
            continue
        owner = store.get(_owner(upload.key))
        if owner is None or owner.terminal:
            storage.abort(upload.key, upload.upload_id)
            aborted += 1
    _count(store, "uploads_cleaned", aborted)
    return aborted


def _walk(
    store: ExportStore,
    storage: Storage,
    clock: Clock,
    retention: timedelta,
    in_time: Callable[[], bool],
) -> int:
    """Go on through the bucket from where the last run stopped, and delete what is no file."""
    since = store.queue_counts().since
    knows_all = since is not None and clock.now() - since >= retention

    def wanted(key: str, owner: Export | None) -> bool:
        if owner is None:
            return not knows_all
        if not owner.terminal or owner.result is None or owner.file_expires_at is None:
            return not owner.terminal
        return key == owner.result.key and clock.now() < owner.file_expires_at

    place = store.cleanup_cursor()
    walked = strays = 0
    for batch in _batches(_keys_after(storage, place)):
        owners = {one: store.get(one) for one in set(map(_owner, batch))}
        stale = [key for key in batch if not wanted(key, owners[_owner(key)])]
        storage.delete(stale)
        _count(store, "strays_cleaned", len(stale))
        strays += len(stale)
        walked += len(batch)
        store.set_cleanup_cursor(batch[-1])
        if walked >= WALKED or not in_time():
            return strays
    store.set_cleanup_cursor("")
    return strays


def _keys_after(storage: Storage, place: str) -> Iterator[str]:
    """Our keys behind a place, in order. Listed by the first two digits of export ids: a walk that
    goes on somewhere skips the pages of at most one 256th of the bucket."""
    digits = place.removeprefix(keys.ROOT)[:2]
    for digit in range(int(digits or "0", 16), 256):
        for info in storage.objects(f"{keys.ROOT}{digit:02x}"):
            if info.key > place:
                yield info.key


def _trim_lists(store: ExportStore, in_time: Callable[[], bool]) -> None:
    while in_time() and store.trim_lists(users=USERS) == USERS:
        pass


def _owner(key: str) -> str:
    return key.removeprefix(keys.ROOT).partition("/")[0]


def _count(store: ExportStore, what: str, by: int) -> None:
    if by:
        store.count(what, by)


def _batches(values: Iterable[_Value]) -> Iterator[list[_Value]]:
    values = iter(values)
    while batch := list(islice(values, BATCH)):
        yield batch
