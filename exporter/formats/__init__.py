"""File formats and compressions: rows to bytes."""

from __future__ import annotations
