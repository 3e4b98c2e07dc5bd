"""Stores in Redis; each change is made by one Lua script and is thus atomic."""

from __future__ import annotations
