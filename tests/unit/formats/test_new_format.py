"""A format is one file and one line in the registry; everything else follows from these two."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import pytest
import zstandard

from exporter.config import Config
from exporter.core.exports import Dialect, State
from exporter.errors import QueryError
from exporter.formats import registry
from exporter.formats.base import Format
from exporter.run.run_slice import Ending
from exporter.service.drafts import NewExport
from exporter.service.exports import ExportService
from exporter.settings import Settings
from exporter.sources.hirebase import HirebaseConfig
from tests.checked_lines import CheckedLines, JoinableLines, footer
from tests.harness import LIMITS, Bench, Crash, postings
from tests.unit.api import test_openapi

ROWS = postings(250)
LINES = b"".join(row + b"\n" for row in ROWS)
FILE = b"#lines\n" + LINES + footer(250, zlib.crc32(LINES))
PARTITIONED = msgspec.structs.replace(LIMITS, partition_rows=60, partitions=4)


@pytest.fixture(params=[CheckedLines, JoinableLines])
def kind(request: pytest.FixtureRequest) -> Iterator[type[Format]]:
    with mock.patch.dict(registry.FORMATS, lines=request.param):  # the one line
        yield request.param


def service(bench: Bench) -> ExportService:
    board = HirebaseConfig(base_url="http://[::1]:9")
    return ExportService(
        settings=Settings(),
        config=Config(sources={"board": board}),
        store=bench.memory_store,
        storage=bench.storage,
        clock=bench.clock,
    )


def created(bench: Bench, **fields: Any) -> Bench:
    """Lets the service create the export that the workers of the bench find."""
    bench.memory_store.delete("e1", "u1")
    new = NewExport(
        user_id="u1", surface="native", source="board", search={}, format="lines", **fields
    )
    bench.spec = service(bench).create(new).spec
    return bench


def unpacked(bench: Bench) -> bytes:
    match bench.spec.compression:
        case "gzip":
            return gzip.decompress(bench.file())
        case "zstd":
            reader = zstandard.ZstdDecompressor().stream_reader(
                bench.file(), read_across_frames=True
            )
            return reader.read()
    return bench.file()


@pytest.mark.parametrize("compression", registry.COMPRESSIONS)
@pytest.mark.parametrize("limits", [LIMITS, PARTITIONED], ids=["whole", "partitions"])
def test_an_export_in_a_new_format_survives_the_death_of_each_worker(
    kind: type[Format], compression: str, limits: Any, tmp_path: Path
) -> None:
    # Given: an export of several slices, whose workers have nothing but its checkpoint
    bench = created(Bench(ROWS, limits=limits, seconds_a_page=4.0), compression=compression)
    bench.listed.read_ahead = 2
    endings = [bench.slice()]

    # When: each of four workers dies at one of its calls
    for calls in (7, 10, 15, 6):
        bench.seams.die_at = len(bench.seams.calls) + calls
        with pytest.raises(Crash):
            bench.slice()
        bench.bury()
    endings += bench.run()

    # Then
    assert unpacked(bench) == FILE
    assert (Ending.CUT in endings) is (kind.joinable and limits is PARTITIONED)
    assert bench.export.state is State.FINISHED
    assert bench.spec.file_name.endswith(f".lines{registry.COMPRESSIONS[compression].suffix}")
    result = bench.export.result
    assert result is not None
    _, headers, _ = bench.storage.fetch(bench.storage.presign(result.key, 60))
    assert headers["content-type"] == registry.media_type("lines", compression)
    file = tmp_path / "file"
    file.write_bytes(unpacked(bench))
    assert registry.FORMATS["lines"].count(file) == 250


def test_each_volume_of_a_new_format_is_a_whole_file(kind: type[Format]) -> None:
    # Given
    bench = created(Bench(ROWS, seconds_a_page=4.0), rows_per_file=100)

    # When
    bench.run()

    # Then
    assert bench.export.result is not None
    volumes = [
        bench.file()[one.offset : one.offset + one.size] for one in bench.export.result.volumes
    ]
    lines = [b"".join(row + b"\n" for row in ROWS[at : at + 100]) for at in (0, 100, 200)]
    assert volumes == [
        b"#lines\n" + text + footer(text.count(b"\n"), zlib.crc32(text)) for text in lines
    ]


def test_a_new_format_is_documented_and_chosen_by_its_attributes(kind: type[Format]) -> None:
    # Given
    schemas = json.loads(test_openapi.write())["components"]["schemas"]

    # Then: the surfaces that have every format list it
    field = schemas["ExportRequest"]["properties"]["format"]
    assert "lines" in field["enum"]
    assert f"`lines` ({kind.summary})" in field["description"]
    assert "lines" not in schemas["TaskRequest"]["properties"]["format"]["enum"]

    # And: what it does not support is refused, in the words of its attributes
    with mock.patch.object(kind, "compressible", False), pytest.raises(QueryError) as refused:
        created(Bench([]), compression="gzip", dialect=Dialect(bom=True))
    assert [one["msg"] for one in refused.value.problems] == [
        "a lines file is compressed within itself: leave the compression out",
        "only a csv file can have a byte order mark, not lines",
    ]
