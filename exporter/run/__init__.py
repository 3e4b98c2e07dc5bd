"""Work of a worker on one slice: read pages, encode rows, upload pieces, commit, publish."""

from __future__ import annotations
