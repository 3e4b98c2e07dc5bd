"""The export engine: turns a search over job postings into a file in an object store."""

from __future__ import annotations
