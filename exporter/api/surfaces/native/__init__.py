"""The native contract: exports from any source, with all details of each export."""

from __future__ import annotations
