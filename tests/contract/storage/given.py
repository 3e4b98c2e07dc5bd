"""Test data for every Storage, and the size of its parts."""

from __future__ import annotations

from exporter.core.checkpoints import FileState
from exporter.storage.base import FileHeaders, FileWriter, Storage

CSV = FileHeaders("text/csv; charset=utf-8", "postings.csv")
MIB = 1024**2
PART = 5 * MIB
"""Smallest size of a part that is not the last."""
NEW = FileState()


def writer(
    storage: Storage,
    folder: str,
    fence: str,
    state: FileState = NEW,
    headers: FileHeaders = CSV,
) -> FileWriter:
    return storage.open_file(folder, fence, headers, state, piece_bytes=PART)


def published(storage: Storage, folder: str, data: bytes, headers: FileHeaders = CSV) -> str:
    """Publishes a file of one piece and returns its key."""
    file = writer(storage, folder, "1-a", headers=headers)
    file.append(bytearray(data))()
    file.publish()
    return file.key
