"""Stores in Redis; every state change is one Lua script, so each change is atomic."""

from __future__ import annotations
