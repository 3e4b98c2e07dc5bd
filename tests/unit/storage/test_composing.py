"""Tests of one object composed from several, in steps that a crash may interrupt."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.storage import composing
from exporter.storage.base import ObjectInfo
from exporter.storage.composing import Step

LEAST = 10

_sizes = st.lists(st.integers(0, 60), min_size=1, max_size=8)


def _objects(sizes: list[int]) -> tuple[list[ObjectInfo], dict[str, bytes]]:
    infos, held = [], {}
    at = 0
    for n, size in enumerate(sizes):
        infos.append(ObjectInfo(str(n), size, ""))
        held[str(n)] = bytes((at + i) % 251 for i in range(size))
        at += size
    return infos, held


def _bytes(step: Step, held: dict[str, bytes]) -> bytes:
    stretches = step.read or ((step.copy,) if step.copy else ())
    return b"".join(held[one.source.key][one.span.start : one.span.stop] for one in stretches)


@given(_sizes, st.integers(0, 12))
def test_whatever_the_sizes_and_wherever_it_goes_on_the_parts_are_the_objects(
    sizes: list[int], crash_after: int
) -> None:
    # Given
    infos, held = _objects(sizes)
    whole = b"".join(held.values())

    # When: one worker makes some parts and dies, and another worker continues behind them
    parts = [_bytes(step, held) for step in composing.plan_steps(infos, 0, min_bytes=LEAST)]
    kept = [part for part in parts[:crash_after] if len(part) >= LEAST]
    done = sum(map(len, kept))
    kept += [_bytes(step, held) for step in composing.plan_steps(infos, done, min_bytes=LEAST)]

    # Then
    assert b"".join(parts) == whole
    assert b"".join(kept) == whole
    assert all(len(part) >= LEAST for part in [*parts[:-1], *kept[:-1]])


def test_large_objects_are_copied_and_only_what_joins_small_ones_is_read() -> None:
    # Given
    infos, _ = _objects([30, 3, 4, 40, 2])

    # When
    steps = list(composing.plan_steps(infos, 0, min_bytes=LEAST))

    # Then
    read = [sum(len(one.span) for one in step.read) for step in steps]
    copied = [len(step.copy.span) if step.copy else 0 for step in steps]
    assert list(zip(read, copied, strict=True)) == [(0, 30), (10, 0), (0, 37), (2, 0)]


@pytest.mark.parametrize("size", [5 * 2**20, 2**30, 5 * 2**40])
def test_a_file_of_any_size_is_made_in_fewer_parts_than_s3_takes(size: int) -> None:
    # Given
    info = ObjectInfo("large", size, "")

    # When
    copied = [
        len(step.copy.span)
        for step in composing.plan_steps([info], 0, min_bytes=5 * 2**20)
        if step.copy is not None
    ]

    # Then
    assert sum(copied) == size
    assert len(copied) <= 5_001
    assert all(5 * 2**20 <= one <= 5 * 2**30 for one in copied)
