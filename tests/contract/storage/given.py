"""Test data for every Storage, and the size of its parts."""

from __future__ import annotations

from exporter.storage.base import FileHeaders

CSV = FileHeaders("text/csv; charset=utf-8", "postings.csv")
MIB = 1024**2
PART = 5 * MIB
"""Smallest size of a part that is not the last."""
