"""A source that reads the rows of a SQL table."""

from __future__ import annotations
