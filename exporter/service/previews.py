"""The first rows of an export, while it is written and as long as its file is kept."""

from __future__ import annotations

import msgspec

from exporter.core import limits
from exporter.core.exports import Export, Result, State
from exporter.errors import StorageError, StorageUnavailable
from exporter.formats.registry import COMPRESSIONS, FORMATS
from exporter.service.exports import ExportService
from exporter.storage import keys

MAX_ROWS = limits.FIRST_ROWS.default
MAX_BYTES = limits.FIRST_ROWS_BYTES.default
READ_BYTES = MAX_BYTES + 64 * 1024
"""Beginning of a file that is read; no compression adds more than the difference to its rows."""


class FirstRows(msgspec.Struct, frozen=True):
    """The first rows of an export: CSV with a header, or JSON Lines."""

    data: bytes
    media_type: str
    is_partial: bool
    """True until the export is finished: its file may then begin with other rows."""


def first_rows(service: ExportService, export: Export, *, operator: str = "") -> FirstRows | None:
    """Returns the first rows of an export; None if no rows are stored, or not any more.

    The rows of a running export are those that its worker has stored at its first checkpoint (see
    `exporter.run.preview`), those of a finished one the first of its file. `operator` is the id of
    the key of another user who sees them, for the activity. Raises StorageUnavailable.
    """
    found = _find(service, export)
    if found is not None and operator:
        service.store.note(export.id, "previewed", operator)
    return found


def _find(service: ExportService, export: Export) -> FirstRows | None:
    if not export.readable or not (export.rows or export.terminal):
        return None
    media_type = FORMATS[export.spec.format].preview_type
    if not export.terminal:
        data = _stored(service, keys.preview_key(export.id), MAX_BYTES)
        if data is not None:
            return FirstRows(data, media_type, is_partial=True)
        # It is deleted just before the end, when the file is there.
        now = service.store.get(export.id)
        if now is None:
            return None
        export = now
    data = _first_bytes(service, export)
    if data is None:
        return None
    rows = FORMATS[export.spec.format].first_rows(data, MAX_ROWS)
    return FirstRows(rows, media_type, is_partial=not export.terminal)


def _first_bytes(service: ExportService, export: Export) -> bytes | None:
    """Returns the first bytes of the file before compression; None if there is no file."""
    result = export.result or export.closing
    if result is None or export.state in (State.FAILED, State.CANCELED):
        return None
    if export.file_expires_at is not None and export.file_expires_at <= service.clock.now():
        return None
    data = _stored(service, result.key, min(READ_BYTES, _end(result)))
    return data and COMPRESSIONS[export.spec.compression].head(data, MAX_BYTES)


def _end(result: Result) -> int:
    """Returns the size of the part of the file that has the first rows and nothing but rows."""
    if result.volumes:
        return result.volumes[0].size
    return result.unknown_ids.offset if result.unknown_ids else result.file_size


def _stored(service: ExportService, key: str, size: int) -> bytes | None:
    """Returns the beginning of an object; None if there is no such object."""
    found = service.storage.head(key)
    if found is None:
        return None
    try:
        return b"".join(service.storage.stream(key, 0, min(size, found.size)))
    except StorageUnavailable:
        raise
    except StorageError:
        if service.storage.head(key) is not None:
            raise
        return None
