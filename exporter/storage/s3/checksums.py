"""CRC64NVME, the checksum by which S3 checks parts and whole objects, as its headers have it.

The checksum of an object follows from those of its parts, so nothing is read or summed twice. It
needs the compiled library: without it, MD5 is faster.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable

from exporter.native import checksums

is_available = checksums.is_available
ALGORITHM = "CRC64NVME"
TYPE = "FULL_OBJECT"
"""Of the two kinds of checksums of an object, the one that does not depend on its parts."""


def of(data: bytes | bytearray) -> str:
    """Returns the checksum of a part."""
    return _text(checksums.crc64(data))


def of_whole(parts: Iterable[tuple[int, str]]) -> str:
    """Returns the checksum of an object from the sizes and checksums of its parts."""
    whole = 0
    for size, checksum in parts:
        own = int.from_bytes(base64.b64decode(checksum), "big")
        whole = checksums.combine_crc64(whole, own, size)
    return _text(whole)


def _text(crc: int) -> str:
    return base64.b64encode(crc.to_bytes(8, "big")).decode()
