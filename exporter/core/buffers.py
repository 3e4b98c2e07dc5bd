"""Buffers that bytes are appended to, and whose memory is used again."""

from __future__ import annotations

import contextlib
import ctypes
from typing import Self

_resize = ctypes.pythonapi.PyByteArray_Resize
_resize.argtypes = (ctypes.py_object, ctypes.c_ssize_t)
_resize.restype = ctypes.c_int


class Buffer:
    """Bytes that grow at their end: `buffer += b"..."`, or a library writes at an address.

    Memory that this process never used before costs a page fault for every 4 KiB, which takes
    longer than to write it. After `take`, the next bytes therefore go into memory of `spare`, where
    the caller puts what it has taken and does not need any more.
    """

    def __init__(self, data: bytearray | None = None, spare: list[bytearray] | None = None) -> None:
        """Begins with `data`, which then belongs to the buffer."""
        self._memory = bytearray() if data is None else data
        self._size = len(self._memory)
        self._spare = [] if spare is None else spare
        self._is_rest = False
        """Whether nothing was appended since `take`."""

    def __len__(self) -> int:
        return self._size

    def __bytes__(self) -> bytes:
        return bytes(self.view())

    def __iadd__(self, more: bytes | bytearray | memoryview) -> Self:
        end = self._size + len(more)
        self._extend_to(end)
        memoryview(self._memory)[self._size : end] = more
        self._size = end
        return self

    def address(self, size: int) -> int:
        """Returns the address after the last byte; up to `size` bytes may be written there.

        The address is valid until the next call that appends; see `add_written`.
        """
        # One byte more, because an empty place has no address.
        self._extend_to(self._size + size + 1)
        return ctypes.addressof(ctypes.c_char.from_buffer(self._memory, self._size))

    def add_written(self, size: int) -> None:
        """Adds the first `size` bytes that were written at the address."""
        self._size += size

    def truncate(self, size: int) -> None:
        """Removes all bytes but the first `size`, which are not more than there are."""
        self._size = size

    def view(self) -> memoryview:
        """Returns all bytes without a copy; the buffer cannot grow while the view exists."""
        return memoryview(self._memory)[: self._size]

    def take(self, size: int) -> bytearray:
        """Removes the first `size` bytes and returns them; fewer if there are fewer."""
        taken, end = self._memory, self._size
        self._memory, self._is_rest = taken[size:end], True
        self._size = len(self._memory)
        # The memory behind the bytes stays allocated, unless it is more than they take.
        _resize(taken, min(size, end))
        return taken

    def _extend_to(self, end: int) -> None:
        if end > len(self._memory) and self._is_rest:
            self._is_rest = False
            self._move_to_spare()
        if end > len(self._memory):
            # Not filled with zeros.
            _resize(self._memory, end)

    def _move_to_spare(self) -> None:
        """Moves the bytes to memory of `spare`, if there is any.

        This is done as late as possible, when the piece before may have been stored, so that there
        is less memory in all.
        """
        while self._spare:
            memory = self._spare.pop()
            # A request that failed before the one that stored it may still have a view of it.
            with contextlib.suppress(BufferError):
                _resize(memory, max(len(memory), self._size) + 1)
                memoryview(memory)[: self._size] = self.view()
                self._memory = memory
                return
