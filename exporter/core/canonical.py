"""The digest of a canonical search: equal searches have equal digests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


def digest(canonical: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of the search as JSON with sorted keys: 64 hexadecimal digits.

    Two canonical searches have the same digest exactly if they are equal; the order of keys does
    not matter. Raises ValueError for NaN and infinities.
    """
    return hashlib.sha256(_encode(canonical).encode()).hexdigest()
