"""Tests of checkpoints: workers of other versions read the state of a file in them."""

from __future__ import annotations

import msgspec

from exporter.core.checkpoints import Checkpoint, FileState, Part, Tail

STORED = b"""{
    "cursor": 7, "rows": 70, "pages": 7, "key": "exports/e/1-a/jobs.csv", "upload_id": "u",
    "parts": [["etag-1", 100], ["etag-2", 60]], "part_size": 100, "overhang": 40,
    "tail": {"key": "exports/e/1-a/tail-3", "size": 9}
}"""
"""Written by version 0.2.0."""


def test_the_state_of_a_file_has_the_fields_of_older_checkpoints_by_their_names() -> None:
    # When
    at = msgspec.json.decode(STORED, type=Checkpoint)
    written = msgspec.json.decode(msgspec.json.encode(at))

    # Then
    assert at.file == FileState(
        "exports/e/1-a/jobs.csv",
        "u",
        (Part("etag-1", 100), Part("etag-2", 60)),
        100,
        40,
        Tail("exports/e/1-a/tail-3", 9),
    )
    assert (at.file.uploaded, at.file.stored_parts[-1].size) == (160, 100)
    assert {name: written[name] for name in msgspec.json.decode(STORED)} == msgspec.json.decode(
        STORED
    )


def test_another_state_of_the_file_changes_nothing_else() -> None:
    # Given
    at = msgspec.json.decode(STORED, type=Checkpoint)

    # When
    other = at.with_file(FileState())

    # Then
    assert other == Checkpoint(cursor=7, rows=70, pages=7)
    assert other.with_file(at.file) == at
