"""Keys of objects in the bucket."""

from __future__ import annotations

ROOT = "exports/"


def prefix(export_id: str) -> str:
    """Returns the prefix of every object of an export."""
    return f"{ROOT}{export_id}/"


def preview_key(export_id: str) -> str:
    """Returns the key of the first rows of an export; kept until its file is published."""
    return f"{prefix(export_id)}preview"


def input_key(export_id: str) -> str:
    """Returns the key of the requested ids of an export; kept until the export ends."""
    return f"{prefix(export_id)}input"
