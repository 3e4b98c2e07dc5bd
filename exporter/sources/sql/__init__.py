"""Rows read from a SQL table."""

from __future__ import annotations
