"""Fault injection for the board: error responses, broken bodies, false pages, drift."""

from __future__ import annotations
