"""The HTTP API: every contract as a surface over one export service."""

from __future__ import annotations
