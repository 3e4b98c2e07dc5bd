"""HTTP API: each contract is a family of endpoints ("surface") over the same export service."""

from __future__ import annotations
