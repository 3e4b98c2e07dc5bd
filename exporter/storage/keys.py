"""Names of objects in the bucket."""

from __future__ import annotations

ROOT = "exports/"


def prefix(export_id: str) -> str:
    """Everything that an export may leave in the bucket stands under this."""
    return f"{ROOT}{export_id}/"


def input_key(export_id: str) -> str:
    """Where the ids stand that an export was asked for, until it has ended."""
    return f"{prefix(export_id)}input"
