"""The first rows of a running export, stored as an object of their own."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import structlog

from exporter.core import limits
from exporter.core.checkpoints import Checkpoint, Row, RowCounts
from exporter.core.exports import Spec
from exporter.errors import ObjectExists, StorageError
from exporter.formats import registry
from exporter.run.packer import FileEncoder
from exporter.storage import keys
from exporter.storage.base import FileHeaders, Storage

MAX_ROWS = limits.FIRST_ROWS.default
MAX_BYTES = limits.FIRST_ROWS_BYTES.default
MAX_HELD_BYTES = 16 * MAX_BYTES
"""Size of the rows that are held until they are stored; with few columns, less is written."""
AFTER_SECONDS = 2.0
"""Time after which a checkpoint stores the first rows of a file that one worker writes.

They cost a worker 8 ms, so that an export which ends sooner does without.
"""

log = structlog.get_logger()


class Preview:
    """Holds the first rows of an export and stores them before a checkpoint of its first slice.

    Workers never read the object, so the file has the same bytes with and without it. The object
    lies under the prefix of the export, where all but the published file is deleted at the end and
    by each cleaning. If a worker dies between the object and the first checkpoint, the next worker
    reads the first rows again, and replaces the object if they differ.
    """

    def __init__(self, storage: Storage, spec: Spec, *, is_wanted: bool) -> None:
        """Holds no rows unless `is_wanted`: the slice reads the first rows of the export."""
        self.may_exist = False
        """True if this worker has sent the object, whether or not the store has answered."""
        self._storage = storage
        self._spec = spec
        self._is_wanted = is_wanted
        self._rows: list[bytes] = []
        self._room = MAX_HELD_BYTES

    def add(self, rows: Sequence[Row]) -> None:
        """Adds the next rows of the export, until there are MAX_ROWS or MAX_HELD_BYTES."""
        if not self._is_wanted:
            return
        # Copied, because a row may keep its whole page in memory.
        for row in rows[: MAX_ROWS - len(self._rows)]:
            copy = bytes(row)
            self._room -= len(copy)
            if self._room < 0:
                return
            self._rows.append(copy)

    def store(self, rows: int) -> None:
        """Stores what was added, but no more than the first `rows` rows of the export; once.

        An error of the object store is logged: an export does not fail for its preview.
        """
        if not self._rows or not rows:
            return
        self._is_wanted, self.may_exist = False, True
        held, self._rows = self._rows[:rows], []
        try:
            self._put(held)
        except StorageError as error:
            log.warning("preview.not_stored", reason=str(error))

    def _put(self, rows: Sequence[Row]) -> None:
        spec = msgspec.structs.replace(self._spec, compression="none", rows_per_file=None)
        # One of its own: a format may hold rows back.
        encoder = registry.make(spec.format, spec.dialect, spec.column_names)
        file = FileEncoder(encoder, spec, Checkpoint(cursor=None), bytearray())
        file.add(rows, RowCounts())
        file.close()
        data = encoder.first_rows(bytes(file.take(MAX_BYTES)), MAX_ROWS)
        key, headers = keys.preview_key(spec.id), FileHeaders(encoder.preview_type, spec.file_name)
        try:
            self._storage.put_small(key, data, headers)
        except ObjectExists:
            self._storage.delete([key])
            self._storage.put_small(key, data, headers)
