"""Filters, names and limits of the vendors' contracts, shared by sources, surfaces and board."""

from __future__ import annotations
