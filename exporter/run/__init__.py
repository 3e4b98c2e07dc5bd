"""Work of a worker on one slice: read pages, encode rows, upload parts, commit, publish."""

from __future__ import annotations
