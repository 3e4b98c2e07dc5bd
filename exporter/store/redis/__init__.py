"""Records in Redis: every transition is one Lua script."""

from __future__ import annotations
