"""Contract of files: written in pieces, continued by other workers, published once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import pytest

from exporter.core.checkpoints import FileState
from exporter.errors import LeaseLost, StorageError, UploadGone
from exporter.storage.base import FileWriter, ObjectRange, Storage, guarded
from tests.contract.conftest import Bench
from tests.contract.storage.given import CSV, PART, published, writer

A, B, C = (bytes([letter]) * PART for letter in b"abc")


def _stored(file: FileWriter, *pieces: bytes) -> FileState:
    """Stores the first pieces of a file and returns the state after them."""
    for piece in pieces:
        file.append(bytearray(piece))()
    return file.state(sum(map(len, pieces)))


def _keys(storage: Storage, prefix: str) -> list[str]:
    return [info.key for info in storage.objects(prefix)]


def test_pieces_that_are_stored_in_any_order_become_one_file(bench: Bench) -> None:
    # Given
    storage, file = bench.storage, writer(bench.storage, bench.prefix, "1-a")

    # When
    stores = [file.append(bytearray(piece)) for piece in (A, B, b"end")]
    for number in (2, 0, 1):
        stores[number]()
    seen = _keys(storage, bench.prefix)
    file.publish()

    # Then: it is seen only as a whole
    assert seen == []
    assert file.key.startswith(f"{bench.prefix}1-a/")
    assert _keys(storage, bench.prefix) == [file.key]
    assert storage.read(file.key) == A + B + b"end"
    assert list(storage.unfinished(bench.prefix)) == []


def test_a_file_can_be_published_whole_even_if_it_is_empty(bench: Bench) -> None:
    for fence, data in (("1-a", b""), ("2-b", b"id\n")):
        # When: the answer to the first call is lost
        file = writer(bench.storage, bench.prefix, fence)
        assert not file.is_begun
        file.publish_whole(bytearray(data))
        file.publish_whole(bytearray(data))

        # Then
        assert bench.storage.read(file.key) == data


def test_a_file_that_is_published_twice_is_published_once(bench: Bench) -> None:
    # Given
    file = writer(bench.storage, bench.prefix, "1-a")
    state = _stored(file, A, b"end")
    file.publish()

    # When: the answer was lost, or the next worker repeats the call
    file.publish()
    writer(bench.storage, bench.prefix, "2-b", state).publish()

    # Then
    assert _keys(bench.storage, bench.prefix) == [file.key]
    assert bench.storage.read(file.key) == A + b"end"


def test_a_worker_goes_on_where_another_has_paused(bench: Bench) -> None:
    # Given
    first = writer(bench.storage, bench.prefix, "1-a")
    first.append(bytearray(A))()
    state = first.pause(PART, bytearray(b"a few bytes,"))

    # When
    second = writer(bench.storage, bench.prefix, "2-b", state)
    assert second.resume(clean=True) == state
    rest = second.read_rest()
    second.append(rest + b" and the end")()
    second.publish()

    # Then
    assert state.uploaded + len(rest) == PART + len(b"a few bytes,")
    assert second.key == first.key
    assert bench.storage.read(second.key) == A + b"a few bytes, and the end"


def test_a_worker_that_takes_over_goes_on_at_the_committed_position(bench: Bench) -> None:
    # Given: a position within the second piece, and a third that no state names
    storage, first = bench.storage, writer(bench.storage, bench.prefix, "1-a")
    first.append(bytearray(A))()
    first.append(bytearray(B))()
    committed = first.state(PART + 7)
    first.append(bytearray(C))()
    assert committed.uploaded == PART + 7

    # When: a first takeover dies before its commit, and another takes over
    writer(storage, bench.prefix, "2-b", committed).resume(clean=False)
    third = writer(storage, bench.prefix, "3-c", committed)
    state = third.resume(clean=False)
    rest = third.read_rest()
    third.forget(committed, state)
    assert state.uploaded + len(rest) == PART + 7
    third.append(rest + b"end")()
    third.publish()

    # Then
    assert storage.read(third.key) == A + B[:7] + b"end"
    storage.delete_all(bench.prefix, keep=third.key)
    assert _keys(storage, bench.prefix) == [third.key]
    assert list(storage.unfinished(bench.prefix)) == []


def test_a_stopped_worker_changes_nothing_after_a_takeover(bench: Bench) -> None:
    # Given: a worker that is stopped before it stores a piece
    storage, stopped = bench.storage, writer(bench.storage, bench.prefix, "1-a")
    committed = _stored(stopped, A)
    late = stopped.append(bytearray(B))
    other = writer(storage, bench.prefix, "2-b", committed)
    state = other.resume(clean=False)

    # When: it wakes up before and after the publication of its successor
    with pytest.raises(UploadGone):
        late()
    with suppress(StorageError):
        writer(storage, bench.prefix, "1-a", committed).publish()
    other.append(bytearray(b"end"))()
    other.publish()
    with pytest.raises(UploadGone):
        late()
    other.forget(committed, state)

    # Then
    assert storage.read(other.key) == A + b"end"


def test_a_worker_without_any_piece_is_taken_over_too(bench: Bench) -> None:
    # Given: a worker that died before its first state
    first = writer(bench.storage, bench.prefix, "1-a")
    first.append(bytearray(A))()

    # When
    second = writer(bench.storage, bench.prefix, "2-b")
    assert second.resume(clean=False).uploaded == 0
    second.append(bytearray(b"all"))()
    second.publish()

    # Then
    bench.storage.delete_all(bench.prefix, keep=second.key)
    assert bench.storage.read(second.key) == b"all"
    assert list(bench.storage.unfinished(bench.prefix)) == []


def test_a_file_whose_stored_bytes_are_gone_must_be_begun_again(bench: Bench) -> None:
    # Given
    committed = _stored(writer(bench.storage, bench.prefix, "1-a"), A)
    bench.storage.delete_all(bench.prefix)

    # When, Then
    with pytest.raises(UploadGone):
        writer(bench.storage, bench.prefix, "2-b", committed).resume(clean=False)


def test_files_are_composed_of_ranges_in_order(bench: Bench) -> None:
    # Given
    storage, sources = bench.storage, []
    for number, data in enumerate((A + b"tail of a", B + b"tail of b")):
        info = storage.head(published(storage, f"{bench.prefix}{number}/", data))
        assert info is not None
        sources.append(info)
    first, second = sources
    file = writer(storage, bench.prefix, "1-a")

    # When
    stores = [
        file.copy([ObjectRange(first, range(PART))]),
        file.copy(
            [ObjectRange(first, range(PART, PART + 4)), ObjectRange(second, range(PART - 4))]
        ),
        file.append(bytearray(b"end")),
    ]
    for store in reversed(stores):
        store()
    file.publish()

    # Then
    assert storage.read(file.key) == A + b"tail" + B[: PART - 4] + b"end"


def test_copied_pieces_have_the_sizes_that_the_destination_takes(bench: Bench) -> None:
    # Given
    storage = bench.storage
    source = storage.head(published(storage, bench.prefix, A + b"some more"))
    assert source is not None

    # When
    file = writer(storage, bench.prefix, "2-b")
    file.expect(3 * PART)
    sizes = file.copy_sizes([source])
    taken = [size for size in (PART, PART + 1, PART) if size in sizes]
    for size in taken:
        file.copy([ObjectRange(source, range(size))])()
    file.append(bytearray(b"end"))()
    file.publish()

    # Then
    assert file.copy_sizes([source]) == sizes
    assert len(taken) >= 2
    assert storage.read(file.key) == b"".join((A + b"s")[:size] for size in taken) + b"end"


@pytest.mark.parametrize("expected", [0, 1, 10**9, 10**15])
def test_the_size_of_pieces_never_changes_once_it_is_chosen(bench: Bench, expected: int) -> None:
    # Given
    file = writer(bench.storage, bench.prefix, "1-a")

    # When
    file.expect(expected)
    chosen = file.piece_size
    file.expect(10**12)

    # Then
    assert file.piece_size == chosen >= PART
    again = writer(bench.storage, bench.prefix, "2-b", file.state(0))
    assert again.piece_size == chosen
    assert not again.is_full


def test_an_unfinished_file_is_listed_with_its_start(bench: Bench) -> None:
    # Given
    began = bench.clock.now()
    file = writer(bench.storage, bench.prefix, "1-a")
    _stored(file, b"a")

    # When
    (found,) = bench.storage.unfinished(bench.prefix)

    # Then
    assert found.key == file.key
    assert abs(found.started_at - began) < timedelta(seconds=10)
    assert list(bench.storage.unfinished(f"{bench.prefix}other/")) == []
    bench.storage.discard(found)


def test_a_discarded_file_is_gone(bench: Bench) -> None:
    # Given
    file = writer(bench.storage, bench.prefix, "1-a")
    state = _stored(file, A)
    (found,) = bench.storage.unfinished(bench.prefix)

    # When
    bench.storage.discard(found)
    bench.storage.discard(found)

    # Then
    assert list(bench.storage.unfinished(bench.prefix)) == []
    with pytest.raises(UploadGone):
        file.append(bytearray(B))()
    with pytest.raises(UploadGone):
        writer(bench.storage, bench.prefix, "1-a", state).publish()


def test_deleting_all_keeps_the_file_that_is_named(bench: Bench) -> None:
    # Given
    storage, key = bench.storage, published(bench.storage, bench.prefix, b"kept")
    storage.put_small(f"{bench.prefix}input", b"ids", CSV)
    _stored(writer(storage, bench.prefix, "2-b"), b"a")

    # When
    storage.delete_all(bench.prefix, keep=key)

    # Then
    assert _keys(storage, bench.prefix) == [key]
    assert list(storage.unfinished(bench.prefix)) == []


def test_without_the_lease_nothing_is_added_or_published(bench: Bench) -> None:
    # Given
    file = writer(bench.storage, bench.prefix, "1-a")
    state = _stored(file, A)

    def lost() -> None:
        raise LeaseLost("somebody else owns it")

    attempts: list[Callable[[], object]] = [
        file.append(bytearray(b"late")),
        writer(bench.storage, bench.prefix, "1-a", state).publish,
        lambda: writer(bench.storage, bench.prefix, "2-b").publish_whole(bytearray(b"a")),
        lambda: writer(bench.storage, bench.prefix, "2-b", state).resume(clean=False),
    ]

    # When
    with guarded(lost):
        for attempt in attempts:
            with pytest.raises(LeaseLost):
                attempt()

    # Then
    assert _keys(bench.storage, bench.prefix) == []
    other = writer(bench.storage, bench.prefix, "2-b", state)
    other.resume(clean=False)
    other.append(other.read_rest() + b"end")()
    other.publish()
    assert bench.storage.read(other.key) == A + b"end"
