"""The `exporter` command."""

from __future__ import annotations
