"""Job board for tests and local use: plays four vendors' job APIs over one SQLite file."""

from __future__ import annotations
