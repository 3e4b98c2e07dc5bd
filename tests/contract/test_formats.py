"""Tests of the contract of all formats with real readers: csv, json, DuckDB, the client."""

from __future__ import annotations

import csv
import functools
import io
import itertools
import json
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import hirebase.models.jobs
import hirebase.streaming
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporter.core.buffers import Buffer
from exporter.core.checkpoints import RowCounts
from exporter.core.exports import Dialect
from exporter.errors import ConfigurationError, SourceUntrue
from exporter.formats import registry
from exporter.formats.base import Format, State
from exporter.formats.csv import Csv
from exporter.formats.envelope import Envelope
from exporter.formats.json import JsonLines
from tests import fast
from tests.checked_lines import JoinableLines
from tests.encoding import append, encode, file_of, spread

quick = settings(
    max_examples=fast.examples(60), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)  # a busy machine is no defect

COLUMNS = ("_id", "job_title", "score", "skills", "salary", "remote", "note")

keys = st.sampled_from([*COLUMNS, "beside", "é", 'quo"te', "back\\slash"])
words = st.text(max_size=6)
scalars = (
    st.none()
    | st.booleans()
    | words
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=2),
    max_leaves=4,
)
postings = st.lists(st.dictionaries(keys, values, max_size=6), max_size=5)
spellings: st.SearchStrategy[Callable[[Any], bytes]] = st.sampled_from(
    [
        lambda value: json.dumps(value).encode(),
        lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(),
        lambda value: json.dumps(value, ensure_ascii=False, indent=2).encode(),
    ]
)


FORMATS: dict[str, type[Format]] = {**registry.FORMATS, "lines": JoinableLines}
"""All formats, and one that only tests have."""


def makers_of(name: str, fmt: type[Format]) -> Iterator[Any]:
    """Yields makers of a format with as little as it needs, and with columns and all options."""
    options = {one.name: True for one in msgspec.structs.fields(Dialect) if one.type is bool}
    dialect = Dialect(exported_at="2026-03-04", **options)
    yield pytest.param(lambda: fmt(COLUMNS if fmt.needs_columns else ()), id=name)
    yield pytest.param(lambda: fmt(COLUMNS, dialect), id=f"{name}-options")


makers = pytest.mark.parametrize(
    "make", [make for name, fmt in FORMATS.items() for make in makers_of(name, fmt)]
)


def whole_json() -> Format:
    return registry.make("json", Dialect(), ())


def chosen_json() -> Format:
    return registry.make("json", Dialect(), COLUMNS)


def plain_csv() -> Format:
    return registry.make("csv", Dialect(), COLUMNS)


def enveloped() -> Format:
    return registry.make("json_envelope", Dialect(exported_at="2026-03-04T12:00:00Z"), ())


def test_every_name_makes_a_format_and_any_other_is_refused_with_the_names() -> None:
    # Given / When
    formats = [registry.make(name, Dialect(), COLUMNS) for name in registry.FORMATS]

    # Then
    assert set(registry.FORMATS) == {"csv", "json", "json_envelope"}
    assert {fmt.extension for fmt in formats} == {"csv", "json"}
    with pytest.raises(KeyError, match="'xlsx'; choose one of csv, json, json_envelope"):
        registry.make("xlsx", Dialect(), COLUMNS)


def test_a_csv_without_columns_is_a_configuration_error_that_says_what_to_do() -> None:
    with pytest.raises(ConfigurationError, match="name them"):
        registry.make("csv", Dialect(), ())


@makers
@quick
@given(rows=postings, spell=spellings, cuts=st.lists(st.integers(0, 8), max_size=4))
def test_the_file_is_the_same_however_rows_are_cut_into_pages_and_spread_over_workers(
    make: Callable[[], Format],
    rows: list[dict[str, Any]],
    spell: Callable[[Any], bytes],
    cuts: list[int],
) -> None:
    # Given
    raw = [spell(row) for row in rows]
    edges = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    pages = [raw[start:end] for start, end in itertools.pairwise(edges)]
    one, many = RowCounts(), RowCounts()

    # When
    whole = file_of(make(), [raw], one)
    cut = spread([make(), make(), make()], pages, many)

    # Then
    assert cut == whole
    assert many == one


@pytest.mark.parametrize("name", [name for name, fmt in FORMATS.items() if fmt.joinable])
@quick
@given(rows=postings, cuts=st.lists(st.integers(0, 8), max_size=4))
def test_partitions_of_a_joinable_file_are_the_file_if_laid_end_to_end(
    name: str, rows: list[dict[str, Any]], cuts: list[int]
) -> None:
    # Given
    make = functools.partial(FORMATS[name], COLUMNS)
    raw = [json.dumps(row).encode() for row in rows]
    edges = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]

    # When: each partition begins with the number of the rows before it
    joined = Buffer()
    ends: list[State] = []
    for start, end in itertools.pairwise(edges):
        fmt = make()
        state = fmt.state_type(start)
        if start == 0 and not ends:
            fmt.open(state, joined)
        ends.append(append([fmt], [raw[start:end]], state, joined))
    make().close(make().join(ends), joined)

    # Then
    assert bytes(joined) == file_of(make(), [raw])


@makers
@pytest.mark.parametrize("rows", [0, 1, 7])
def test_the_rows_of_a_file_are_counted(
    make: Callable[[], Format], rows: int, tmp_path: Path
) -> None:
    # Given
    posting = json.dumps({"_id": "1", "note": 'two\nlines, "quoted"', "skills": ["]"]}).encode()
    file = tmp_path / "file"
    file.write_bytes(file_of(make(), [[posting] * rows]))

    # When / Then
    assert make().count(file) == rows


@makers
@given(rows=postings, spelling=spellings, wanted=st.integers(0, 6), data=st.data())
@settings(quick, max_examples=fast.examples(20))
def test_the_first_rows_of_a_file_are_whole_rows_however_much_of_it_is_there(
    make: Callable[[], Format],
    rows: list[dict[str, Any]],
    spelling: Callable[[Any], bytes],
    wanted: int,
    data: st.DataObject,
) -> None:
    # Given
    found = make()
    whole = file_of(found, [[spelling(row) for row in rows]])
    there = whole[: data.draw(st.integers(0, len(whole)))]
    # When
    first, of_all = found.first_rows(there, wanted), found.first_rows(whole, wanted)
    # Then
    assert of_all.startswith(first)
    assert first == b"" or first.endswith(b"\n")
    if not isinstance(found, (Csv, JsonLines, Envelope)):
        return
    if isinstance(found, Csv):
        lines = list(csv.reader(io.StringIO(of_all.decode(), newline="")))
        assert len(lines) == min(wanted, len(rows)) + 1
    else:
        lines = [json.loads(line) for line in of_all.split(b"\n")[:-1]]
        assert len(lines) == min(wanted, len(rows))
        assert all(isinstance(line, dict) for line in lines)


@makers
def test_a_format_accepts_slices_of_a_page_as_well_as_bytes(make: Callable[[], Format]) -> None:
    # Given
    page = b'[ {"_id": "1", "score": 1.10} , {"_id": "2", "skills": ["a", "b"]} ]'
    slices = msgspec.json.decode(page, type=list[msgspec.Raw])

    # When / Then
    assert file_of(make(), [slices]) == file_of(make(), [[bytes(row) for row in slices]])


@makers
@pytest.mark.parametrize(
    "bad",
    [
        *(b"[1]", b'"text"', b"12", b"null", b"", b"{", b"]", b":", b"{1:2}", b"{,}"),
        *(b'{"a":1', b'{"a":1,}', b'{"a" 1}', b'{"a"}', b'{"a":tru}', b'{"a":01}', b'{"a":[1,2}'),
        *(b'{"a":1]', b'{"a":1} {}', b'{"a":"\\x"}', b'{"a":[1 2]}', b'{"a":[,1]}'),
        *(b'{"a":"open}', b"\xef\xbb\xbf{}", b'{"a":NaNa}', b'{"a":1}\x00'),
    ],
)
def test_a_row_that_is_not_a_json_object_is_refused_with_its_place_in_the_page(
    make: Callable[[], Format], bad: bytes
) -> None:
    # Given
    page = [b'{"_id":"1"}', b'{"_id":"2"}', bad]

    # When / Then
    with pytest.raises(SourceUntrue, match="row 2 of the page"):
        encode(make(), page)


@makers
def test_encoding_a_page_a_thousand_times_does_not_grow_memory(make: Callable[[], Format]) -> None:
    # Given
    row = {"_id": "1", "job_title": "Engineer, é", "skills": ["a"], "beside": 1, "note": "a\nb"}
    page = [json.dumps(row).encode(), json.dumps({**row, "score": float("nan")}).encode()]
    fmt, row_counts = make(), RowCounts()
    for _ in range(10):
        encode(fmt, page, row_counts)
    tracemalloc.start()

    # When
    try:
        encode(fmt, page, row_counts)
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(1000):
            encode(fmt, page, row_counts)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    # Then
    assert after - before < 4096


@quick
@given(rows=postings, spell=spellings)
def test_a_json_file_read_back_is_the_postings(
    rows: list[dict[str, Any]], spell: Callable[[Any], bytes]
) -> None:
    # Given
    raw = [spell(row) for row in rows]

    # When
    text = file_of(whole_json(), [raw]).decode()

    # Then: one line per row for every reader
    assert [json.loads(line) for line in text.splitlines()] == rows
    assert text.count("\n") == len(rows)


@quick
@given(rows=postings, spell=spellings)
def test_a_projected_json_file_holds_the_columns_that_a_row_has_in_their_order(
    rows: list[dict[str, Any]], spell: Callable[[Any], bytes]
) -> None:
    # Given
    raw = [spell(row) for row in rows]

    # When
    text = file_of(chosen_json(), [raw]).decode()

    # Then
    expected = [[(name, row[name]) for name in COLUMNS if name in row] for row in rows]
    assert [list(json.loads(line).items()) for line in text.splitlines()] == expected


def cell(value: Any) -> str:
    """Returns the text that a CSV reader must see for a posting's value; not for numbers."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


@quick
@given(rows=postings)
def test_a_csv_read_back_by_the_csv_module_is_the_postings(rows: list[dict[str, Any]]) -> None:
    # Given
    raw = [json.dumps(row).encode() for row in rows]

    # When
    text = file_of(plain_csv(), [raw]).decode()
    read = list(csv.reader(io.StringIO(text, newline=""), strict=True))

    # Then
    assert read == [list(COLUMNS)] + [[cell(row.get(name)) for name in COLUMNS] for row in rows]


@quick
@given(rows=postings, spell=spellings)
def test_an_envelope_read_back_is_the_postings_and_their_number(
    rows: list[dict[str, Any]], spell: Callable[[Any], bytes]
) -> None:
    # Given
    raw = [spell(row) for row in rows]

    # When
    read = json.loads(file_of(enveloped(), [raw]))

    # Then
    assert read == {"exported_at": "2026-03-04T12:00:00Z", "jobs": rows, "total": len(rows)}


@quick
@given(texts=st.lists(words, max_size=4))
def test_a_joined_list_is_its_texts_with_a_semicolon_and_a_blank_between_them(
    texts: list[str],
) -> None:
    # Given
    fmt = registry.make("csv", Dialect(joined=True), ("_id", "skills"))
    row = json.dumps({"_id": "1", "skills": texts}).encode()

    # When
    read = list(csv.reader(io.StringIO(file_of(fmt, [[row]]).decode(), newline=""), strict=True))

    # Then
    assert read == [["_id", "skills"], ["1", "; ".join(texts)]]


def test_duckdb_reads_both_files_as_the_postings_and_keeps_null_and_empty_string_apart(
    tmp_path: Path,
) -> None:
    # Given
    rows: list[dict[str, Any]] = [
        {"_id": "1", "job_title": 'A "b", c', "note": "", "score": 1.5, "skills": ["x", "y, z"]},
        {"_id": "2", "job_title": "línea\r\ndos \u2028 三", "note": None, "remote": True},
        {"_id": "3", "salary": {"min": 1, "text": "a\nb"}, "score": 18446744073709551616},
    ]
    raw = [json.dumps(row, ensure_ascii=False).encode() for row in rows]
    (tmp_path / "f.csv").write_bytes(file_of(plain_csv(), [raw]))
    (tmp_path / "f.json").write_bytes(file_of(whole_json(), [raw]))

    # When
    with duckdb.connect() as db:
        from_csv = db.execute(
            "select * from read_csv(?, all_varchar=true, header=true, delim=',', quote='\"',"
            " escape='\"', strict_mode=true, nullstr='', allow_quoted_nulls=false)",
            [str(tmp_path / "f.csv")],
        ).fetchall()
        from_json = db.execute(
            "select json::varchar from read_ndjson_objects(?)", [str(tmp_path / "f.json")]
        ).fetchall()

    # Then
    def seen(value: Any) -> str | None:
        return None if value is None else value if isinstance(value, str) else json.dumps(value)

    assert from_csv == [tuple(seen(row.get(name)) for name in COLUMNS) for row in rows]
    assert [json.loads(line) for (line,) in from_json] == rows


@pytest.mark.parametrize("make", [whole_json, plain_csv])
def test_the_official_client_reads_the_file_into_its_job_model(
    make: Callable[[], Format], tmp_path: Path
) -> None:
    # Given
    rows: list[dict[str, Any]] = [
        {"_id": "65f0", "job_title": "Senior, \u2028 Engineer", "skills": ["py", 'a "b"']},
        {"_id": "65f1", "job_title": "two\nlines", "skills": []},
    ]
    fmt = make()
    file = tmp_path / f"jobs.{fmt.extension}"
    file.write_bytes(file_of(fmt, [[json.dumps(row, ensure_ascii=False).encode()] for row in rows]))

    # When
    jobs = list(hirebase.streaming.stream_jobs_file(str(file)))

    # Then
    read = [job for job in jobs if isinstance(job, hirebase.models.jobs.Job)]
    assert [(job.id, job.job_title, job.skills) for job in read] == [
        (row["_id"], row["job_title"], row["skills"]) for row in rows
    ]
