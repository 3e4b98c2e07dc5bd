"""The `exporter doctor` command: one function a check, all of them listed in `registry`."""

from __future__ import annotations
