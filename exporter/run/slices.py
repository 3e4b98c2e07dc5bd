"""One slice of an export: pages in, parts out, and every way to end.

The order is the promise: upload the part, then commit the checkpoint that names it. A crash
between the two costs some parts of work; the other order would cost rows. Pages are fetched and
parts are uploaded in threads beside the loop; all that is decided is decided in its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta

import structlog

from exporter.clock import Clock
from exporter.core import exports
from exporter.core.checkpoints import Checkpoint, Row, Volume
from exporter.core.exports import Result, State
from exporter.errors import (
    SourceError,
    SourceUnavailable,
    SourceUntrue,
    StorageError,
    StorageUnavailable,
    UploadGone,
)
from exporter.formats import registry
from exporter.formats.base import Format
from exporter.run import partitions
from exporter.run.ending import Ending
from exporter.run.lease import LeasedExport
from exporter.run.limits import Limits
from exporter.run.packer import FileEncoder
from exporter.run.page_reader import PageReader
from exporter.run.prefetch import Prefetch
from exporter.run.uploads import PartUploader
from exporter.sources.base import Page, Source
from exporter.storage import keys
from exporter.storage.base import Storage
from exporter.storage.export_file import File, part_size
from exporter.store.base import Verdict

log = structlog.get_logger()

UNTRUE_WAITS = 3
"""Waits in a row for a page that cannot be true before the export fails."""
LEAVING = 2.0
"""Seconds that a worker which shuts down waits for parts under way. Then it leaves them to whoever
takes the export over."""


class Slice:
    """The position in the file: what is durable (`saved`) and what is only in hand."""

    def __init__(
        self,
        held: LeasedExport,
        source: Source,
        encoder: Format,
        storage: Storage,
        clock: Clock,
        limits: Limits,
        draining: Callable[[], bool],
    ) -> None:
        self.held = held
        self.export = held.export
        self.spec = held.export.spec
        if held.export.partition is not None:
            self.spec = partitions.narrowed(self.spec, held.export.partition)
        self.source = source
        self.encoder = encoder
        self.clock = clock
        self.limits = limits
        self.draining = draining
        self.ends_at = clock.monotonic() + limits.slice.total_seconds()
        content_type = registry.CONTENT_TYPES.get(self.spec.compression, encoder.content_type)
        self.file = File(storage, self.export.id, held.fence, self.spec.file_name, content_type)
        self.saved = self.export.checkpoint or self._beginning()
        self.advanced = False
        self.reader = PageReader(
            self.spec,
            self.saved,
            identity=source.identity,
            tolerated_drift=source.tolerated_drift,
        )
        self.row_counts = self.saved.row_counts.copy()
        self.file_encoder = FileEncoder(encoder, self.spec, self.saved, bytearray())
        self.pages = Prefetch(source, self.spec, self._may_read)
        self.uploader = PartUploader(self.file, ahead=limits.parts_ahead, check=held.check)
        self.leaving_since: float | None = None

    # -- the loop ------------------------------------------------------------------------------

    def work(self) -> Ending:
        try:
            try:
                try:
                    return self._go_on()
                except SourceUnavailable as error:
                    return self._wait(str(error), error.retry_after)
                except SourceError as error:
                    return self._refused(error)
            except UploadGone as error:
                return self._begin_anew(str(error))
        except StorageUnavailable as error:
            # A write may still be on its way to S3, so this hand-over is not a clean one.
            return self._pause(str(error), clean=False)
        except StorageError as error:
            return self._fail(str(error))

    def _go_on(self) -> Ending:
        if self.export.cancel_requested:
            return self._cancel()
        if self.export.attempts >= self.limits.max_attempts:
            return self._fail(
                f"gave up: {self.export.attempts} workers in a row were lost while working on "
                "this export, without progress between them"
            )
        if self.export.closing is not None and self._is_published(self.export.closing):
            return self._finish(self.export.closing)
        if self.held.now() > self.limits.until(self.export):
            return self._fail(f"not finished within {self.limits.deadline} of its creation")
        if not self.held.clean:
            self._take_over()
        return self._read()

    def _read(self) -> Ending:
        self.file_encoder = FileEncoder(
            self.encoder, self.spec, self.saved, self.file.read_tail(self.saved)
        )
        while not self.reader.ended:
            if self.draining() or (self._is_late() and not self.pages.awaits(self.at.cursor)):
                return self._hand_over()
            ending = self._write_page()
            if ending is not None:
                return ending
        return self._publish()

    def _write_page(self) -> Ending | None:
        page = self._fetch()
        if page is None:
            canceled = self.held.beat(self._progress()) is Verdict.CANCEL
            return self._cancel() if canceled else self._hand_over()
        ending = self._cut(page)
        if ending is not None:
            return ending
        rows = self._taken(page)
        if not self.reader.ended and not self._is_late():
            self.pages.reach(self.at)
        self.file_encoder.add(rows, self.row_counts)
        if self._part_is_full() and not self.reader.ended:
            self.uploader.send(self._in_hand(), self.file_encoder.buffer)
            self.file_encoder.taken()
        return self._commit_stored()

    def _cut(self, page: Page) -> Ending | None:
        """Let others read the rest beside each other, if that is worth it. An ending if so."""
        is_first = self.at.pages == 0 and self.export.partition is None
        if not is_first or self.export.partitions is not None or page.total is None:
            return None
        if self.source.predict_next(self.at.cursor) is None:
            return None
        pieces = partitions.cut(
            self.spec,
            page.total,
            page_rows=len(page.rows),
            least=self.limits.partition_rows,
            most=self.limits.partitions,
        )
        verdict = self.held.cut(pieces) if pieces else None
        if verdict is None:
            return None
        if verdict is Verdict.CANCEL:
            return self._cancel()
        log.info("export.cut", partitions=len(pieces), total=page.total)
        return Ending.CUT

    def _taken(self, page: Page) -> Sequence[Row]:
        """The rows of the page that belong into the file."""
        return self.reader.accept(page)

    def _is_late(self) -> bool:
        return self.clock.monotonic() >= self.ends_at

    def _may_read(self) -> bool:
        """Whether a page may be waited for any longer."""
        return not self.draining() and self.held.beat(self._progress()) is Verdict.CONTINUE

    def _may_store(self) -> bool:
        """Whether a part may be waited for any longer."""
        self.held.check()
        if not self.draining():
            return True
        now = self.clock.monotonic()
        if self.leaving_since is None:
            self.leaving_since = now
        return now - self.leaving_since < LEAVING

    def _fetch(self) -> Page | None:
        try:
            return self.pages.get(self.at.cursor)
        except SourceUntrue as error:
            stalls = 0 if self.advanced else self.export.stalls
            if stalls >= UNTRUE_WAITS:
                raise
            # A proxy that shows its maintenance page lies for a while; a source that lies for good
            # does so again. What was read until here is kept either way.
            raise SourceUnavailable(str(error)) from error

    @property
    def at(self) -> Checkpoint:
        return self.reader.at

    def _part_is_full(self) -> bool:
        cut = len(self.at.parts) + len(self.uploader)
        return self.file_encoder.made >= part_size(self.limits.part_size, cut)

    def _commit_stored(self, *, all_: bool = False) -> Ending | None:
        """Commit the parts that are stored, in order; wait until there is room for another, or
        until `all_` are committed. An ending if the slice is to end with that."""
        committed = False
        while (stored := self.uploader.stored(self.saved, self._may_store, all_=all_)) is not None:
            committed = True
            if self._commit(stored.at, stored.closing) is Verdict.CANCEL:
                return self._cancel()
        if self.uploader.is_full(all_=all_):
            return self._release(Ending.HANDED_OVER, clean=False)
        if not committed and self.held.beat(self._progress()) is Verdict.CANCEL:
            return self._cancel()
        return None

    def _commit(self, checkpoint: Checkpoint, closing: Result | None = None) -> Verdict:
        """Make the position durable. After this, a crash costs nothing of what it names."""
        stale = self.saved.tail
        verdict = self.held.commit(checkpoint, progress=self._progress(), closing=closing)
        self.advanced = self.advanced or checkpoint.pages > self.saved.pages
        self.saved = checkpoint
        # The reading may be some parts ahead of what is durable.
        self.reader.at = self.at.evolve(
            key=checkpoint.key,
            upload_id=checkpoint.upload_id,
            parts=checkpoint.parts,
            tail=checkpoint.tail,
        )
        if stale is not None and stale != checkpoint.tail:
            self.file.drop(stale.key)
        return verdict

    def _progress(self) -> float:
        return exports.progress(self.at.rows, self.at.total_at_end, self.spec.limit)

    # -- endings -------------------------------------------------------------------------------

    def _publish(self) -> Ending:
        result = self._result(self.file_encoder.close(self.reader.unknown))
        if self.saved.upload_id is None and not self.uploader:
            # The pages in hand are in no checkpoint: a successor that does not find the file
            # reads them again.
            if self._commit(self.saved, closing=result) is Verdict.CANCEL:
                return self._cancel()
            self.file.publish_small(self.file_encoder.buffer)
            self.file.check(result.key, result.file_size)
            return self._finish(result)
        return self._upload(self._in_hand(), result)

    def _upload(self, at: Checkpoint, result: Result) -> Ending:
        self.uploader.send(at, self.file_encoder.buffer, closing=result)
        ending = self._commit_stored(all_=True)
        if ending is not None:
            return ending
        self.file.complete(self.saved)
        self.file.check(result.key, result.file_size)
        return self._finish(result)

    def _is_published(self, closing: Result) -> bool:
        """Whether a predecessor got as far as the file, although nobody heard the answer."""
        if self.saved.upload_id is not None and self.saved.end_reason is not None:
            self.file.complete(self.saved)
        return self.file.holds(closing.key, closing.file_size)

    def _finish(self, result: Result) -> Ending:
        # Before the end, while the lease still holds: nobody comes back to a finished export.
        once = self.export.checkpoint is None and self.held.clean
        if not once or self.spec.ids is not None or self.export.partitions is not None:
            self.file.tidy(keep=result.key)
        self.held.end(
            State.FINISHED,
            result=result,
            keep_file=self.limits.keep(self.export),
            keep_record=self.limits.keep_record,
        )
        log.info(self._action("finished"), rows=result.record_count, bytes=result.file_size)
        return Ending.FINISHED

    def _refused(self, error: SourceError) -> Ending:
        """The source will not give what the export needs."""
        seen = f" (after {self.at.fetched} rows)" if self.at.fetched else ""
        return self._fail(f"{error}{seen}")

    def _fail(self, error: str, *, reachable: bool = True) -> Ending:
        if reachable:
            self._discard()
        self.held.end(State.FAILED, error=error, keep_record=self.limits.keep_record)
        log.warning(self._action("failed"), reason=error)
        return Ending.FAILED

    def _cancel(self) -> Ending:
        self._discard()
        self.held.end(State.CANCELED, keep_record=self.limits.keep_record)
        log.info(self._action("canceled"), rows=self.at.rows)
        return Ending.CANCELED

    def _action(self, what: str) -> str:
        """What the log says: the end of a partition is none of its export."""
        return f"{'export' if self.export.partition is None else 'partition'}.{what}"

    def _hand_over(self) -> Ending:
        return self._save_hand() or self._release(Ending.HANDED_OVER, clean=True)

    def _wait(self, reason: str, retry_after: float | None) -> Ending:
        """Let go of the worker until the upstream may answer again, keeping what was read."""
        return self._save_hand() or self._pause(reason, clean=True, retry_after=retry_after)

    def _pause(self, reason: str, *, clean: bool, retry_after: float | None = None) -> Ending:
        wait = self.limits.wait(
            self.export,
            self.held.now(),
            reason,
            advanced=self.advanced,
            at_least=retry_after or 0,
        )
        if isinstance(wait, timedelta):
            return self._release(Ending.WAITING, clean=clean, retry_in=wait, reason=reason)
        # While S3 is silent nothing can be cleaned up: the cleaning of the bucket does it later.
        return self._fail(wait, reachable=clean)

    def _release(
        self,
        ending: Ending,
        *,
        clean: bool,
        retry_in: timedelta | None = None,
        reason: str | None = None,
    ) -> Ending:
        self.held.release(clean=clean, retry_in=retry_in, reason=reason)
        log.info("slice.released", ending=ending, rows=self.saved.rows, reason=reason)
        return ending

    # -- starting points -----------------------------------------------------------------------

    def _beginning(self) -> Checkpoint:
        return Checkpoint(cursor=self.source.start(self.spec.limit, self.spec.offset))

    def _take_over(self) -> None:
        taken = self.file.take_over(self.saved)
        if taken is None:
            raise UploadGone(f"the parts at {self.saved.key} are gone from the store")
        if taken != self.saved:
            sealed = self.saved.key
            self._commit(taken)
            if sealed is not None and taken.parts:
                self.file.drop(sealed)
            log.info("slice.took_over", rows=self.saved.rows, attempt=self.export.attempts)

    def _begin_anew(self, reason: str) -> Ending:
        """The upload vanished under us although the lease is ours: read everything again.

        A bucket's own rules may abort an upload that stayed open for days.
        """
        log.warning("export.begins_anew", reason=reason, rows=self.saved.rows)
        self.held.confirm()
        settled = self.uploader.settled(self._may_store)
        self._start_over()
        return self._pause(reason, clean=settled)

    def _start_over(self) -> None:
        self.file.discard(keep=keys.input_key(self.spec.id))
        self._commit(self._beginning())

    def _discard(self) -> None:
        """Empty the bucket of this export, once the store has confirmed that it is ours."""
        # A part that came after this would lie there until the bucket is cleaned.
        self.uploader.settled(self._may_store)
        self.held.confirm()
        self.file.discard()

    def _save_hand(self) -> Ending | None:
        """Make the pages in hand durable, if there are any beyond the checkpoint. An ending if it
        came to one meanwhile."""
        ending = self._commit_stored(all_=True)
        if ending is not None or self.at.pages == self.saved.pages:
            return ending
        kept = self.file.keep_tail(self._in_hand(), self.file_encoder.buffer)
        return self._cancel() if self._commit(kept) is Verdict.CANCEL else None

    def _in_hand(self) -> Checkpoint:
        """The position behind the last page taken, as a checkpoint; settles the buffer."""
        return self.reader.checkpoint().evolve(
            row_counts=self.row_counts.copy(), packed=self.file_encoder.settle()
        )

    def _result(self, unknown_ids: Volume | None) -> Result:
        cut = self.spec.rows_per_file is not None
        return Result(
            key=self.saved.key or self.file.key,
            file_size=self.file_encoder.size,
            record_count=self.at.rows,
            completeness=self.reader.completeness(),
            row_counts=self.row_counts.copy(),
            pages=self.at.pages,
            volumes=self.file_encoder.volumes if cut else (),
            unknown_ids=unknown_ids,
        )
