"""A byte order mark is at the beginning of each file, and nowhere else."""

from __future__ import annotations

import codecs
import gzip

import msgspec
import pytest

from exporter.core.exports import Dialect
from exporter.run.run_slice import Ending
from tests.harness import LIMITS, Bench, postings

CUT = msgspec.structs.replace(LIMITS, partition_rows=60)


def plain(bench: Bench, compression: str) -> bytes:
    return gzip.decompress(bench.file()) if compression == "gzip" else bench.file()


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize(("seconds_a_page", "limits"), [(0, LIMITS), (20, LIMITS), (0, CUT)])
def test_a_file_of_slices_or_partitions_has_one_mark(
    compression: str, seconds_a_page: int, limits: object
) -> None:
    # Given
    options = {"compression": compression, "seconds_a_page": seconds_a_page, "limits": limits}
    calm = Bench(postings(250), compression=compression)
    calm.run()
    bench = Bench(postings(250), dialect=Dialect(bom=True), **options)  # type: ignore[arg-type]
    bench.listed.read_ahead = 2 if limits is CUT else 0

    # When
    endings = bench.run()

    # Then
    assert (Ending.CUT in endings) is (limits is CUT)
    assert plain(bench, compression) == codecs.BOM_UTF8 + plain(calm, compression)


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_each_volume_has_a_mark(compression: str) -> None:
    # Given
    options = {"rows_per_file": 100, "compression": compression}
    bench = Bench(postings(250), dialect=Dialect(bom=True), **options)  # type: ignore[arg-type]

    # When
    bench.run()

    # Then
    file, result = bench.file(), bench.export.result
    assert result is not None
    assert len(result.volumes) == 3
    for volume in result.volumes:
        piece = file[volume.offset : volume.offset + volume.size]
        text = gzip.decompress(piece) if compression == "gzip" else piece
        assert text.startswith(codecs.BOM_UTF8 + b"_id,")
        assert text.count(codecs.BOM_UTF8) == 1


def test_an_empty_file_has_a_mark_and_the_header() -> None:
    # Given
    bench = Bench([], dialect=Dialect(bom=True))

    # When
    bench.run()

    # Then
    assert bench.file() == codecs.BOM_UTF8 + b"_id,title,n\r\n"
