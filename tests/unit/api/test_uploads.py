"""Forms and lists of ids, however the network cuts them into pieces."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.api.files.uploads import IdLines, Text, read
from exporter.api.refusal import Refusal

FORM = "multipart/form-data; boundary=x"
BODY = (
    b'--x\r\nContent-Disposition: form-data; name="note"\r\n\r\nhello\r\n--\r\r\n'
    b'--x\r\nContent-Type: text/csv\r\ncontent-disposition: form-data; name="ids_file"; '
    b'filename="a b.csv"\r\n\r\n12\r\n345\r\n6\r\n--x--\r\nepilogue'
)


def parse(pieces: Iterable[bytes], sinks: Any, **options: Any) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    asyncio.run(read(FORM, chunks(), sinks, **{"max_bytes": 1_000_000_000, **options}))


def test_a_form_means_the_same_wherever_it_is_cut_in_two() -> None:
    for place in range(len(BODY) + 1):
        # Given
        note, ids = Text("note", 100), IdLines(10)

        # When
        parse([BODY[:place], BODY[place:]], {"note": note, "ids_file": ids})

        # Then
        assert note.value == "hello\r\n--\r", place
        assert list(ids.ids()) == [12, 345, 6], place


def test_a_form_means_the_same_byte_by_byte() -> None:
    # Given
    note, ids = Text("note", 100), IdLines(10)

    # When
    parse((bytes([byte]) for byte in BODY), {"note": note, "ids_file": ids})

    # Then
    assert (note.value, list(ids.ids())) == ("hello\r\n--\r", [12, 345, 6])


def test_a_form_that_stops_anywhere_before_its_end_is_refused() -> None:
    for place in range(BODY.index(b"--x--") + 5):
        # When
        with pytest.raises(Refusal) as refused:
            parse([BODY[:place]], {"note": Text("note", 100), "ids_file": IdLines(10)})

        # Then
        assert refused.value.status == 400, place


def test_only_the_field_that_may_be_given_several_times_may() -> None:
    # Given
    part = b'--x\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
    body = part % (b"ids", b"1") + part % (b"ids", b"2") + b"--x--"

    # When
    several = Text("ids", 100)
    parse([body], {"ids": several}, repeatable="ids")
    with pytest.raises(Refusal) as refused:
        parse([body], {"ids": Text("ids", 100)})

    # Then
    assert several.value.split() == ["1", "2"]
    assert refused.value.status == 422


@given(
    ids=st.lists(st.integers(0, 10**18 - 1), min_size=1, unique=True),
    end=st.sampled_from([b"\n", b"\r\n"]),
    mark=st.sampled_from([b"", b"\xef\xbb\xbf"]),
    blank=st.sampled_from([b"", b"\n", b"\r\n\r\n", b" \n"]),
    last=st.booleans(),
    cut=st.integers(1, 50),
)
def test_a_list_of_ids_means_the_same_however_its_lines_end_and_it_is_cut(
    ids: list[int], end: bytes, mark: bytes, blank: bytes, last: bool, cut: int
) -> None:
    # Given
    text = mark + end.join(b"%d" % one for one in ids) + (end + blank if last else b"")
    lines = IdLines(len(ids))

    # When
    for place in range(0, len(text), cut):
        lines(text[place : place + cut])

    # Then
    assert list(lines.ids()) == ids


@given(st.binary(max_size=60), st.integers(1, 10))
def test_any_bytes_are_either_ids_that_stand_there_or_refused(text: bytes, cut: int) -> None:
    # Given
    lines = IdLines(100)

    # When
    try:
        for place in range(0, len(text), cut):
            lines(text[place : place + cut])
        found = list(lines.ids())
    except Refusal as refusal:
        # Then
        assert refusal.status in (400, 422)
        return
    plain = text.removeprefix(b"\xef\xbb\xbf").decode("ascii")
    assert found == [int(line) for line in plain.split("\n") if line.strip()]


def test_many_ids_are_taken_in_with_eight_bytes_each() -> None:
    # Given
    def pieces() -> Iterable[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="ids_file"\r\n\r\n'
        for first in range(0, 200_000, 5_000):
            yield b"".join(b"%d\n" % n for n in range(first, first + 5_000))
        yield b"\r\n--x--\r\n"

    lines = IdLines(200_000)
    tracemalloc.start()

    # When
    parse(pieces(), {"ids_file": lines})

    # Then
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6_000_000
    assert len(lines.ids()) == 200_000
