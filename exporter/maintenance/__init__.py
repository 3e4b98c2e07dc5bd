"""What cleans the bucket and repairs the queue."""

from __future__ import annotations
