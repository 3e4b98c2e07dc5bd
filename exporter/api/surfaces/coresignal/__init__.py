"""The Coresignal contract: postings collected in bulk, as gzipped JSON Lines."""

from __future__ import annotations
