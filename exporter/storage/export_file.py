"""The file of one export inside the object store: parts, tail, seal, publish.

Keys are `exports/<export id>/<fence>/<name>`. The fence in the key is what makes a second worker
harmless: two workers never write the same key, and the loser's upload is sealed before the
winner writes on.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from exporter.core.checkpoints import Checkpoint, Part, Tail
from exporter.errors import ObjectExists, StorageError, StorageUnavailable, UploadGone
from exporter.storage.base import FileHeaders, ObjectInfo, Storage
from exporter.storage.composing import Stretch
from exporter.storage.keys import prefix

log = structlog.get_logger()


def part_size(base: int, uploaded: int) -> int:
    """How large the next part must be, so that a file of any size stays under 10,000 parts.

    Base for the first 1,000 parts, 4 times that up to 5,000, 16 times after: 8 MiB parts reach
    0.75 TiB.

    >>> part_size(8, 0), part_size(8, 1_000), part_size(8, 5_000)
    (8, 32, 128)
    """
    if uploaded < 1_000:
        return base
    return base * (4 if uploaded < 5_000 else 16)


class File:
    """Writes one export's file under one fence. Nothing is durable until a checkpoint names it."""

    def __init__(
        self, storage: Storage, export_id: str, fence: str, name: str, content_type: str
    ) -> None:
        self._storage = storage
        self._prefix = prefix(export_id)
        self._own = f"{self._prefix}{fence}/"
        self._headers = FileHeaders(content_type=content_type, file_name=name)
        self.key = self._own + name
        """Where this worker's file goes, unless it goes on with an upload handed to it."""

    def opened(self, at: Checkpoint) -> Checkpoint:
        """Open the upload, if there is none yet."""
        if at.upload_id is not None and at.key is not None:
            return at
        return at.evolve(key=self.key, upload_id=self._storage.begin(self.key, self._headers))

    def put(self, at: Checkpoint, number: int, data: bytearray) -> Part:
        """Upload a part, numbered from 1, into the upload that is open there."""
        assert at.key is not None
        assert at.upload_id is not None
        return self._storage.put_part(at.key, at.upload_id, number, data)

    def copy(self, at: Checkpoint, number: int, stretch: Stretch) -> Part:
        """Copy a stretch of another object inside the store, as a part of the open upload."""
        assert at.key is not None
        assert at.upload_id is not None
        (part,) = self._storage.copy_parts(
            stretch.source, at.key, at.upload_id, number, stretch.span
        )
        return part

    def fetch(self, stretches: Sequence[Stretch]) -> bytearray:
        """The bytes of stretches of other objects, one behind the other."""
        data = bytearray()
        for one in stretches:
            for piece in self._storage.stream(one.source.key, one.span.start, one.span.stop):
                data += piece
        return data

    def keep_tail(self, at: Checkpoint, data: bytearray) -> Checkpoint:
        """Store pages too few for a part until the next slice."""
        key = f"{self._own}tail-{at.pages}"
        self._put_once(key, data)
        return at.evolve(tail=Tail(key=key, size=len(data)))

    def read_tail(self, at: Checkpoint) -> bytearray:
        """The pages that the last slice left over; empty if none.

        Raises StorageError if the object is not what the checkpoint says.
        """
        if at.tail is None:
            return bytearray()
        data = self._storage.read(at.tail.key)
        if len(data) != at.tail.size:
            raise StorageError(
                f"{at.tail.key} holds {len(data)} bytes, the checkpoint says {at.tail.size}"
            )
        return bytearray(data)

    def publish_small(self, data: bytearray) -> None:
        """Store the whole file at once, at `key`."""
        self._put_once(self.key, data)

    def _put_once(self, key: str, data: bytearray) -> None:
        # Only this fence writes this key, so an object that is there is a try of ours whose
        # answer was lost.
        try:
            self._storage.put_small(key, data, self._headers)
        except ObjectExists:
            if not self.holds(key, len(data)):
                raise

    def complete(self, at: Checkpoint) -> None:
        """Make the parts one object. Done already, by a try whose answer was lost, is fine."""
        assert at.key is not None
        assert at.upload_id is not None
        try:
            self._storage.complete(at.key, at.upload_id, at.parts)
        except (UploadGone, ObjectExists):
            if not self.holds(at.key, at.uploaded):
                raise

    def holds(self, key: str, size: int) -> bool:
        """Whether there is an object of exactly that size at that key."""
        found = self._storage.head(key)
        return found is not None and found.size == size

    def check(self, key: str, size: int) -> None:
        """Raises StorageError unless there is an object of exactly that size at that key."""
        if not self.holds(key, size):
            raise StorageError(f"{key} was stored, but the store does not show its {size} bytes")

    def take_over(self, at: Checkpoint) -> Checkpoint | None:
        """Go on from the checkpoint of a worker that may still be alive, under this fence.

        Its upload is sealed: completed with exactly the committed parts, which kills its upload
        id, so that it can never add or replace a part. What was sealed is copied inside the store
        into an upload of ours. Safe to run again after a crash at any point. None if the
        committed parts are gone from the store: then the file must begin anew.
        """
        for upload in self._storage.open_uploads(self._prefix):
            if upload.upload_id != at.upload_id:
                self._storage.abort(upload.key, upload.upload_id)
        if at.key is None or at.upload_id is None:
            return at
        if not at.parts:
            self._storage.abort(at.key, at.upload_id)
            return at.evolve(key=None, upload_id=None)
        try:
            self.complete(at)
        except (UploadGone, ObjectExists):
            return None
        upload_id = self._storage.begin(self.key, self._headers)
        sealed = ObjectInfo(key=at.key, size=at.uploaded, etag="")
        parts: tuple[Part, ...] = self._storage.copy_parts(sealed, self.key, upload_id, 1)
        return at.evolve(key=self.key, upload_id=upload_id, parts=parts)

    def drop(self, key: str) -> None:
        """Delete an object that no checkpoint names any more."""
        self._storage.delete([key])

    def discard(self, *, keep: str | None = None) -> None:
        """Leave nothing in the bucket but the object at `keep`."""
        for upload in self._storage.open_uploads(self._prefix):
            self._storage.abort(upload.key, upload.upload_id)
        stale = [info.key for info in self._storage.objects(self._prefix) if info.key != keep]
        if stale:
            self._storage.delete(stale)

    def tidy(self, *, keep: str) -> None:
        """Leave nothing but the published file at `keep`, as far as the store lets us: the rest is
        the cleaning's. Raises StorageUnavailable: the export waits then, and is found published
        when the store answers again."""
        try:
            self.discard(keep=keep)
        except StorageUnavailable:
            raise
        except StorageError as error:
            log.warning("export.untidy", reason=str(error))
