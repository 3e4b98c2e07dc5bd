"""The embedded stack: the whole service as child processes on one machine."""

from __future__ import annotations
