"""CRC-64/NVME of bytes, by the library."""

from __future__ import annotations

import ctypes

from exporter.native import library


def is_available() -> bool:
    """True if the library can be used; the other functions need it."""
    return library.find()[0] is not None


def crc64(data: bytes | bytearray) -> int:
    """Returns the CRC of the bytes, which are not copied; other threads run meanwhile."""
    native, reason = library.find()
    assert native is not None, reason
    if isinstance(data, bytes) or not data:
        return int(native.crc64(0, bytes(data), len(data)))
    first = ctypes.c_char.from_buffer(data)  # while it exists, the bytes stay where they are
    return int(native.crc64(0, ctypes.addressof(first), len(data)))


def combine_crc64(first: int, second: int, size: int) -> int:
    """Returns the CRC of bytes with the CRC `first` and `size` bytes with the CRC `second`."""
    native, reason = library.find()
    assert native is not None, reason
    return int(native.crc64_combine(first, second, size))
