"""Limits of S3, and the places at which a bucket can be addressed."""

from __future__ import annotations

from typing import Literal

MAX_LINK_SECONDS = 7 * 24 * 3600
"""Longest lifetime of a presigned URL of S3; `presign` shortens longer lifetimes to this."""
MIN_PART_BYTES = 5 * 1024**2
"""Smallest size that S3 accepts for every part but the last."""
MAX_PARTS = 10_000
"""Largest number of parts that S3 accepts in one upload."""

Addressing = Literal["auto", "path", "virtual"]
"""Place of the bucket in an address: `https://HOST/BUCKET/KEY` or `https://BUCKET.HOST/KEY`.

With `auto`, the AWS configuration decides (`addressing_style` in the `s3` section of the profile).
If it says nothing, AWS gets virtual-hosted addresses and any other endpoint gets paths.
"""
