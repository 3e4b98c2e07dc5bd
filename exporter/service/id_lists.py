"""Stores the requested ids of an export as one object, until the export ends."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from exporter.storage import keys
from exporter.storage.base import FileHeaders, Storage

_HEADERS = FileHeaders(content_type="application/zlib", file_name="ids.txt.zz")


def write(storage: Storage, export_id: str, ids: Sequence[str]) -> None:
    """Stores the ids of an export as one object; must be called before the export is recorded.

    No id may contain a line feed, because the object has one id per line.
    """
    data = zlib.compress("\n".join(ids).encode(), 1)
    storage.put_small(keys.input_key(export_id), data, _HEADERS)


def read(storage: Storage, export_id: str) -> Sequence[str]:
    """Returns the stored ids in order; raises StorageError if the object does not exist."""
    return zlib.decompress(storage.read(keys.input_key(export_id))).decode().split("\n")


def delete(storage: Storage, export_id: str) -> None:
    """Deletes the stored ids of an export that was not recorded."""
    storage.delete([keys.input_key(export_id)])
