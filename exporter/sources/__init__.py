"""Sources of postings: upstream HTTP APIs, SQL tables and lists of ids."""

from __future__ import annotations
