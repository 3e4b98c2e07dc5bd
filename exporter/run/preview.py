"""The first rows of a running export, stored as an object of their own."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from exporter.core import limits
from exporter.core.buffers import Buffer
from exporter.core.checkpoints import Row, RowCounts
from exporter.core.exports import Spec
from exporter.errors import ObjectExists, StorageError
from exporter.formats import registry
from exporter.formats.projection import projection
from exporter.storage import keys
from exporter.storage.base import FileHeaders, Storage

MAX_ROWS = limits.FIRST_ROWS.default
MAX_BYTES = limits.FIRST_ROWS_BYTES.default
ROWS_AT_ONCE = 10
"""Rows that are encoded between two looks at the size: rows may be of megabytes."""

log = structlog.get_logger()


class Preview:
    """Collects the first rows of an export and stores them before its first checkpoint.

    Workers never read the object, so the file has the same bytes with and without it. The object
    lies under the prefix of the export, where all but the published file is deleted at the end and
    by each cleaning. If a worker dies between the object and the checkpoint, the next worker reads
    the first rows again, and replaces the object if they differ.
    """

    def __init__(self, storage: Storage, spec: Spec, *, is_wanted: bool) -> None:
        """Collects nothing unless `is_wanted`: the slice reads the first rows of the export."""
        self.may_exist = False
        """True if this worker has sent the object, whether or not the store has answered."""
        self._is_wanted = is_wanted
        self._storage = storage
        self._spec = spec
        self._project = projection(spec.columns)
        self._encoder = registry.make(spec.format, spec.dialect, spec.column_names)
        self._state = self._encoder.state_type()
        self._file = Buffer()

    def add(self, rows: Sequence[Row]) -> None:
        """Adds rows of the export, as long as MAX_ROWS and MAX_BYTES are not reached."""
        while self._is_wanted and rows and self._state.rows < MAX_ROWS:
            if len(self._file) >= MAX_BYTES:
                return
            if not self._state.rows:
                self._encoder.open(self._state, self._file)
            size = min(ROWS_AT_ONCE, MAX_ROWS - self._state.rows)
            some, rows = rows[:size], rows[size:]
            if self._project is not None:
                some = self._project(some, RowCounts())
            self._encoder.encode(some, RowCounts(), self._state, self._file)
            self._state.rows += len(some)

    def store(self, rows: int) -> None:
        """Stores what was added, but no more than the first `rows` rows of the export; once.

        An error of the object store is logged: an export does not fail for its preview.
        """
        if not self._is_wanted or not self._state.rows or not rows:
            return
        self._is_wanted, self.may_exist = False, True
        self._encoder.close(self._state, self._file)
        data, self._file = bytes(self._file), Buffer()
        try:
            self._put(self._encoder.first_rows(data[:MAX_BYTES], min(rows, MAX_ROWS)))
        except StorageError as error:
            log.warning("preview.not_stored", reason=str(error))

    def _put(self, data: bytes) -> None:
        key = keys.preview_key(self._spec.id)
        headers = FileHeaders(self._encoder.preview_type, self._spec.file_name)
        try:
            self._storage.put_small(key, data, headers)
        except ObjectExists:
            self._storage.delete([key])
            self._storage.put_small(key, data, headers)
