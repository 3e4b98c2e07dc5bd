"""Cleaning of the bucket and repair of the queue."""

from __future__ import annotations
