"""CRC-64/NVME by the compiled library, which chooses its way by the size and the processor."""

from __future__ import annotations

import random

import pytest

from exporter.native import checksums

pytestmark = pytest.mark.skipif(not checksums.is_available(), reason="no compiled library")
POLYNOMIAL = 0x9A6C9329AC4BC9B5
BYTES = random.Random(64).randbytes(70_000)


def _bit_by_bit(data: bytes) -> int:
    crc = (1 << 64) - 1
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (POLYNOMIAL if crc & 1 else 0)
    return crc ^ ((1 << 64) - 1)


def test_the_check_value_of_the_catalogue_comes_out() -> None:
    # Given, When, Then: CRC-64/NVME in the catalogue of parametrised CRC algorithms
    assert checksums.crc64(b"123456789") == 0xAE8B14860A799888


@pytest.mark.parametrize(
    "size", [0, 1, 15, 16, 17, 127, 128, 129, 191, 192, 255, 256, 1_000, 9_999]
)
def test_the_checksum_is_that_of_the_definition_at_every_size_and_place(size: int) -> None:
    for at in (0, 1, 7):
        # Given
        data = BYTES[at : at + size]

        # When, Then
        assert checksums.crc64(data) == checksums.crc64(bytearray(data)) == _bit_by_bit(data)


@pytest.mark.parametrize("sizes", [(0, 0), (0, 5), (5, 0), (1, 1), (300, 7), (1, 65_536)])
def test_two_checksums_make_that_of_both_texts(sizes: tuple[int, int]) -> None:
    # Given
    first, second = BYTES[: sizes[0]], BYTES[sizes[0] : sum(sizes)]

    # When
    both = checksums.combine_crc64(checksums.crc64(first), checksums.crc64(second), sizes[1])

    # Then
    assert both == checksums.crc64(first + second)
