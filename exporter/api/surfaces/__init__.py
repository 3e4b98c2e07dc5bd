"""One module for each family of endpoints."""

from __future__ import annotations
