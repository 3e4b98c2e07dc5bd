"""Storage in one bucket of an S3."""

from __future__ import annotations
