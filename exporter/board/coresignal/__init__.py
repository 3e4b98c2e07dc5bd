"""Coresignal API of the board: searches by filters or query DSL, and records by id."""

from __future__ import annotations
