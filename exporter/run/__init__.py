"""One slice of work by a worker: read pages, encode rows, upload parts, commit, publish."""

from __future__ import annotations
