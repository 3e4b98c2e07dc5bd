"""Canonical form of a search: equal searches have equal digests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def digest(canonical: Mapping[str, Any]) -> str:
    """Equal for two canonical searches exactly if they are equal: 64 hexadecimal digits."""
    text = json.dumps(canonical, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
