"""Files that pass through the API: uploads, downloads, streams."""

from __future__ import annotations
