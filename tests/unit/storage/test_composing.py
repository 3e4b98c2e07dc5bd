"""Tests of one object composed from several, in steps that a crash may interrupt."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from exporter.storage import composing
from exporter.storage.base import ObjectInfo
from exporter.storage.composing import Step

SIZE = 10

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
    return b"".join(held[one.source.key][one.span.start : one.span.stop] for one in step.ranges)


@given(_sizes, st.integers(0, 12))
def test_whatever_the_sizes_and_wherever_it_goes_on_the_parts_are_the_objects_in_equal_parts(
    sizes: list[int], crash_after: int
) -> None:
    # Given
    infos, held = _objects(sizes)
    whole = b"".join(held.values())

    # When: one worker makes some parts and dies, and another worker continues behind them
    parts = [_bytes(step, held) for step in composing.plan_steps(infos, 0, part_size=SIZE)]
    kept = [part for part in parts[:crash_after] if len(part) == SIZE]
    done = sum(map(len, kept))
    kept += [_bytes(step, held) for step in composing.plan_steps(infos, done, part_size=SIZE)]

    # Then
    assert b"".join(parts) == whole
    assert kept == parts
    assert all(len(part) == SIZE for part in parts[:-1])
    assert all(0 < len(part) <= SIZE for part in parts[-1:])


def test_only_parts_that_lie_in_several_objects_are_read() -> None:
    # Given
    infos, _ = _objects([30, 3, 4, 40, 2])

    # When
    steps = list(composing.plan_steps(infos, 0, part_size=SIZE))

    # Then
    copied = [step.copy is not None for step in steps]
    assert copied == [True, True, True, False, True, True, True, False]
    assert [step.size for step in steps] == [10, 10, 10, 10, 10, 10, 10, 9]
