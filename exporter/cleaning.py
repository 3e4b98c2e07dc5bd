"""Deleting what nobody may download any more, and what a crash left behind."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import structlog

from exporter.clock import Clock
from exporter.parts import ROOT
from exporter.storage.base import Storage
from exporter.store.base import ExportStore

log = structlog.get_logger()

BATCH = 100


class Cleaned(msgspec.Struct, frozen=True):
    """What one cleaning removed."""

    files: int
    uploads: int


def clean(store: ExportStore, storage: Storage, clock: Clock, *, grace: timedelta) -> Cleaned:
    """Delete files past their retention, and abort uploads whose export lives no more.

    An upload younger than `grace` is left alone: its export's first checkpoint may be on its way.
    Raises StoreUnavailable or StorageUnavailable; what was done until then stays done.
    """
    files = 0
    while expired := store.expired_files(limit=BATCH):
        storage.delete([export.result.key for export in expired if export.result is not None])
        for export in expired:
            store.forget_file(export.id)
        files += len(expired)
    uploads = 0
    for upload in storage.open_uploads(ROOT):
        if clock.now() - upload.started_at < grace:
            continue
        owner = store.get(upload.key.removeprefix(ROOT).partition("/")[0])
        if owner is None or owner.terminal:
            storage.abort(upload.key, upload.upload_id)
            uploads += 1
    if files or uploads:
        log.info("cleaning.done", files=files, uploads=uploads)
    return Cleaned(files, uploads)
