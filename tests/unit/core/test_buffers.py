"""Tests of buffers: their bytes, and the memory in which they are."""

from __future__ import annotations

import ctypes
import random

from exporter.core.buffers import Buffer


def written(buffer: Buffer, data: bytes, room: int) -> None:
    """Appends the bytes as a library does."""
    ctypes.memmove(buffer.address(room), data, len(data))
    buffer.add_written(len(data))


def test_pieces_laid_end_to_end_are_what_was_appended_however_it_was() -> None:
    # Given
    source = random.Random(7)
    spare: list[bytearray] = []
    buffer, expected, pieces = Buffer(bytearray(b"tail"), spare), b"tail", b""
    for _ in range(2_000):
        data = source.randbytes(source.choice([0, 1, 40, 9_000]))
        # When
        kind = source.random()
        if kind < 0.4:
            buffer += data
        elif kind < 0.7:
            written(buffer, data, room=len(data) * source.randint(1, 3))
        elif kind < 0.8:
            removed = source.randint(0, len(buffer))
            buffer.truncate(len(buffer) - removed)
            expected = expected[: len(expected) - removed]
            continue
        else:
            piece = buffer.take(source.choice([0, 5_000, 30_000]))
            pieces += piece
            spare.append(piece)
            continue
        expected += data
    # Then
    assert len(pieces) > 100_000
    assert pieces + bytes(buffer) == expected


def test_a_piece_is_made_in_the_memory_of_a_piece_that_was_stored() -> None:
    # Given
    spare: list[bytearray] = []
    buffer = Buffer(None, spare)
    buffer += b"one, two"
    stored = buffer.take(5)
    spare.append(stored)
    # When
    buffer += b", three"
    second = buffer.take(5)
    # Then
    assert second is stored
    assert second == b"two, "
    assert bytes(buffer) == b"three"


def test_memory_that_somebody_still_reads_is_not_written_again() -> None:
    # Given
    spare = [bytearray(b"stored")]
    view = memoryview(spare[0])
    buffer = Buffer(bytearray(b"one, two"), spare)
    # When
    buffer.take(5)
    buffer += b", three"
    # Then
    assert bytes(buffer) == b"two, three"
    assert bytes(view) == b"stored"
    assert not spare
