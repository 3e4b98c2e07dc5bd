"""Faults that the board shows on request: errors, broken bodies, false pages, drift."""

from __future__ import annotations
