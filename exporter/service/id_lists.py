"""Lists of ids that exports were asked for: one object each, as long as its export lives."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from exporter.storage import keys
from exporter.storage.base import FileHeaders, Storage

_HEADERS = FileHeaders(content_type="application/zlib", file_name="ids.txt.zz")


def write(storage: Storage, export_id: str, ids: Sequence[str]) -> None:
    """Keep the ids of an export that is about to be recorded. No id holds a line feed."""
    data = zlib.compress("\n".join(ids).encode(), 1)
    storage.put_small(keys.input_key(export_id), data, _HEADERS)


def read(storage: Storage, export_id: str) -> Sequence[str]:
    """The ids, in their order. Raises StorageError if they are gone."""
    return zlib.decompress(storage.read(keys.input_key(export_id))).decode().split("\n")


def delete(storage: Storage, export_id: str) -> None:
    """Forget the ids of an export that was not recorded."""
    storage.delete([keys.input_key(export_id)])
