"""A store without If-None-Match, such as Backblaze B2: no file is replaced, lost or doubled."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from exporter.cli.doctor import storage_checks
from exporter.core.checkpoints import FileState
from exporter.errors import ObjectExists, StorageError, UploadGone
from exporter.settings import Settings
from exporter.storage.base import guarded
from exporter.storage.keys import prefix
from exporter.storage.s3.multipart import MultipartFile
from exporter.storage.s3.storage import S3Storage
from tests.integration import faulty_s3
from tests.integration.faulty_s3 import FaultyS3
from tests.integration.s3_stores.conftest import CSV
from tests.store_rules import StoreRules

At = Callable[..., S3Storage]
Ruled = Callable[[str], StoreRules]
MIB = 1024**2
NEW = FileState()


def _file(storage: S3Storage, fence: str, export_id: str, state: FileState = NEW) -> MultipartFile:
    return storage.open_file(prefix(export_id), fence, CSV, state, piece_bytes=5 * MIB)


def test_files_are_written_and_never_replaced(ruled: Ruled, storage_at: At, key: str) -> None:
    # Given
    storage = storage_at(ruled("b2").url)

    # When
    storage.put_small(key, b"first", CSV)
    upload_id = storage.begin(f"{key}.large", CSV)
    part = storage.put_part(f"{key}.large", upload_id, 1, b"large")
    storage.complete(f"{key}.large", upload_id, [part])

    # Then
    assert storage.read(key) == b"first"
    assert storage.read(f"{key}.large") == b"large"
    storage.put_small(key, b"first", CSV)  # the same bytes again, as after a lost answer
    with pytest.raises(ObjectExists, match=key):
        storage.put_small(key, b"other", CSV)
    second = storage.begin(key, CSV)
    with pytest.raises(ObjectExists, match=key):
        storage.complete(key, second, [storage.put_part(key, second, 1, b"other")])
    assert storage.read(key) == b"first"


def test_the_refused_header_is_sent_once(ruled: Ruled, storage_at: At, key: str) -> None:
    # Given
    store = ruled("b2")
    storage = storage_at(store.url)

    # When
    for number in range(3):
        storage.put_small(f"{key}.{number}", b"a", CSV)

    # Then
    assert store.refused == [("PutObject", "NotImplemented")]
    assert [seen.operation for seen in store.requests] == [
        "PutObject",
        *("HeadObject", "PutObject") * 3,
    ]


@pytest.mark.parametrize(
    "refusal",
    [
        faulty_s3.error(501, "NotImplemented"),
        faulty_s3.error(501, "SomethingNew"),
        faulty_s3.text(501, "<html>not implemented</html>"),
        faulty_s3.text(
            400,
            "<Error><Code>InvalidArgument</Code>"
            "<Message>Unsupported header 'If-None-Match' received.</Message></Error>",
        ),
    ],
)
def test_every_way_to_refuse_the_header_is_understood(
    ruled: Ruled, storage_at: At, key: str, refusal: faulty_s3.Fault
) -> None:
    # Given
    with FaultyS3(ruled("b2").url) as faulty:
        storage = storage_at(faulty.url)
        faulty.faults.append(refusal)

        # When
        storage.put_small(key, b"a", CSV)

        # Then
        assert storage.read(key) == b"a"


def test_a_write_that_is_not_implemented_at_all_fails_and_nothing_is_remembered(
    ruled: Ruled, storage_at: At, key: str
) -> None:
    # Given
    store = ruled("r2")
    with FaultyS3(store.url) as faulty:
        storage = storage_at(faulty.url)
        refusal = faulty_s3.error(501, "NotImplemented")
        faulty.faults.extend([refusal, faulty_s3.passed_on, refusal])

        # When
        with pytest.raises(StorageError, match="NotImplemented"):
            storage.put_small(key, b"a", CSV)
        storage.put_small(key, b"a", CSV)

    # Then
    assert storage.takes_conditions
    assert [seen.headers.get("if-none-match") for seen in store.requests] == [None, "*"]


def test_a_file_whose_answer_was_lost_is_complete(ruled: Ruled, storage_at: At, key: str) -> None:
    # Given
    with FaultyS3(ruled("b2").url) as faulty:
        storage = storage_at(faulty.url)
        storage.put_small(f"{key}.first", b"a", CSV)
        file = _file(storage, "1-a", key.partition("/")[0])
        data = bytearray(b"rows")
        file.append(data)()

        # When
        faulty.faults.extend([faulty_s3.passed_on, faulty_s3.answer_lost])
        file.publish()

        # Then
        assert storage.read(file.key) == data


def test_a_worker_that_was_stopped_before_its_write_changes_nothing_of_its_successor(
    ruled: Ruled, storage_at: At, key: str
) -> None:
    """The pause lies between the look-up of the key and the write, where no store checks it."""
    # Given
    storage, export_id = storage_at(ruled("b2").url), key.partition("/")[0]
    storage.put_small(key, b"any", CSV)  # the store's way is known
    old = _file(storage, "1-a", export_id)
    old.append(bytearray(5 * MIB))()
    new = _file(storage, "2-b", export_id, old.state(5 * MIB))
    old.append(bytearray(b"not committed"))()
    asked: list[None] = []
    taken: list[FileState | None] = []

    def pause() -> None:
        asked.append(None)
        if len(asked) == 2 and not taken:
            taken.append(None)
            taken[0] = new.resume(clean=False)

    # When
    with guarded(pause), pytest.raises((UploadGone, ObjectExists)):
        old.publish()

    # Then
    assert taken[0] is not None
    new.append(bytearray(b"end"))()
    new.publish()
    assert storage.read(new.key) == bytes(5 * MIB) + b"end"
    sealed = storage.head(old.key)
    assert sealed is not None
    assert sealed.size == 5 * MIB


def test_the_doctor_says_that_keys_are_looked_up_before_they_are_written(ruled: Ruled) -> None:
    # Given, When
    said = storage_checks.exports(Settings(s3_endpoint_url=ruled("b2").url))

    # Then
    assert said.startswith("writes, completes, copies and deletes")
    assert "If-None-Match" in said
