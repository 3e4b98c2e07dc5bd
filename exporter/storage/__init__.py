"""Storage of files: the interface, S3, an in-memory store, and the file of one export."""

from __future__ import annotations
