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


@given(_sizes, st.integers(0, 12), st.integers(SIZE, 40))
def test_whatever_the_sizes_and_wherever_it_goes_on_the_parts_are_the_objects_in_parts(
    sizes: list[int], handed_over_after: int, largest: int
) -> None:
    # Given
    infos, held = _objects(sizes)
    allowed = range(SIZE, largest + 1)
    whole = b"".join(held.values())

    # When: one worker makes some parts, and another worker continues behind them
    parts = [_bytes(step, held) for step in composing.plan_steps(infos, 0, sizes=allowed)]
    kept = [part for part in parts[:handed_over_after] if len(part) in allowed]
    done = sum(map(len, kept))
    kept += [_bytes(step, held) for step in composing.plan_steps(infos, done, sizes=allowed)]

    # Then
    assert b"".join(parts) == whole
    assert kept == parts
    assert all(len(part) in allowed for part in parts[:-1])
    assert all(0 < len(part) <= largest for part in parts[-1:])


@given(_sizes, st.integers(2 * SIZE, 40))
def test_parts_of_free_sizes_are_copies_if_no_object_is_too_small(
    sizes: list[int], largest: int
) -> None:
    # Given
    infos, _ = _objects([SIZE + size for size in sizes])

    # When
    steps = list(composing.plan_steps(infos, 0, sizes=range(SIZE, largest + 1)))

    # Then
    assert all(step.copy and step.size >= SIZE for step in steps)


def test_only_parts_that_lie_in_several_objects_are_read() -> None:
    # Given
    infos, _ = _objects([30, 3, 4, 40, 2])

    # When
    equal = list(composing.plan_steps(infos, 0, sizes=range(SIZE, SIZE + 1)))
    free = list(composing.plan_steps(infos, 0, sizes=range(SIZE, 25)))

    # Then
    copied = [step.copy is not None for step in equal]
    assert copied == [True, True, True, False, True, True, True, False]
    assert [step.size for step in equal] == [10, 10, 10, 10, 10, 10, 10, 9]
    assert [(step.size, step.copy is not None) for step in free] == [
        (20, True),
        (10, True),
        (10, False),
        (24, True),
        (13, True),
        (2, True),
    ]
