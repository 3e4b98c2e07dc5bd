"""The use cases that surfaces call: create, show, list, cancel, delete, link."""

from __future__ import annotations
