"""Slice of an export: reads pages, uploads pieces, commits checkpoints, ends the slice.

A piece is uploaded first; then the checkpoint that names it is committed. A crash between the two
steps costs a few pieces of work; the reverse order would lose rows. All pieces but the last have
the same size, so they end in the middle of a page: the checkpoint names an earlier position, at the
end of a page. Pages are fetched and pieces are uploaded in threads beside the loop; every decision
is made in the thread of the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta

import structlog

from exporter.clock import Clock
from exporter.core import exports
from exporter.core.checkpoints import (
    Checkpoint,
    ConvertedRow,
    FileState,
    Row,
    RowCounts,
    Volume,
)
from exporter.core.exports import Result, State, WrongAnswers
from exporter.errors import (
    UNTRUE,
    SourceError,
    SourceRefused,
    SourceUnavailable,
    SourceUntrue,
    StorageError,
    StorageUnavailable,
    UploadGone,
)
from exporter.formats import registry
from exporter.formats.base import Format
from exporter.native import pages as native_pages
from exporter.run import limits as waits
from exporter.run import partitions, prefetch, preview
from exporter.run.cutting import PieceCutter
from exporter.run.ending import Ending
from exporter.run.lease import LeasedExport
from exporter.run.limits import Limits
from exporter.run.packer import FileEncoder
from exporter.run.page_reader import PageReader
from exporter.run.prefetch import Prefetch
from exporter.run.preview import Preview
from exporter.run.uploads import PieceUploader
from exporter.sources.base import PAST_THE_END, Page, Source
from exporter.storage import keys
from exporter.storage.base import FileHeaders, FileWriter, Storage
from exporter.store.base import Verdict

log = structlog.get_logger()

CONFIRMATION_SECONDS = 1.0
"""Time after which a refused page after the last one is requested again."""
MAX_DRAIN_SECONDS = 2.0
"""Time that a worker which shuts down waits for the upload of pieces that were already sent.

Pieces that take longer are not committed; the next worker makes them again.
"""


class Slice:
    """Runs one slice of an export.

    `saved` is the checkpoint that is stored durably; `at` is the position of the reader, which may
    be some pages further.
    """

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
            self.spec = partitions.partition_spec(self.spec, held.export.partition)
        self.source = source
        self.encoder = encoder
        self.clock = clock
        self.limits = limits
        self.draining = draining
        now = clock.monotonic()
        self.ends_at = now + limits.slice.total_seconds()
        self.storage = storage
        self.saved = self.export.checkpoint or self._first_checkpoint()
        self.file = self._open_file(self.saved.file)
        self.advanced = False
        self.reader = PageReader(
            self.spec,
            self.saved,
            identity=source.identity,
            tolerated_drift=source.tolerated_drift,
            first_rows=self._first_rows(),
        )
        self.row_counts = self.saved.row_counts.copy()
        partition = self.export.partition
        self.preview = Preview(
            storage,
            self.export.spec,
            is_wanted=not self.saved.pages and (partition is None or not partition.place),
        )
        self.preview_at = now + preview.AFTER_SECONDS
        self.spare: list[bytearray] = []
        """Memory of stored pieces, for the next pieces."""
        self._continue_file(self.saved, bytearray())
        # An upstream that failed before must answer for one page first.
        known = None if self.export.stalls else self.export.partition
        self.pages = Prefetch(source, self.spec, self._may_wait_for_page, known)
        self.uploader = PieceUploader(
            self.file, ahead=limits.parts_ahead, check=held.check, spare=self.spare
        )
        self.draining_since: float | None = None

    # -- main loop -----------------------------------------------------------------------------

    def work(self) -> Ending:
        """Runs the slice and returns how it ended; raises LeaseLost if the lease is lost."""
        try:
            try:
                try:
                    return self._run()
                except SourceError as error:
                    return self._on_source_error(error)
            except UploadGone as error:
                return self._restart_lost_file(str(error))
        except StorageUnavailable as error:
            # A write may still reach S3, so the release is not clean.
            return self._pause(str(error), clean=False)
        except StorageError as error:
            return self._fail(str(error))

    def _run(self) -> Ending:
        if self.export.cancel_requested:
            return self._cancel()
        if self.export.attempts >= self.limits.max_attempts:
            return self._fail(
                f"gave up: {self.export.attempts} workers in a row were lost while working on "
                "this export, without progress between them"
            )
        if self.export.closing is not None and self._is_published(self.export.closing):
            return self._finish(self.export.closing)
        if self.held.now() > self.limits.deadline_of(self.export):
            return self._fail(f"not finished within {self.limits.deadline} of its creation")
        self._resume()
        return self._read()

    def _read(self) -> Ending:
        self._continue_file(self.saved, self.file.read_rest())
        while not self.reader.ended:
            if self._must_hand_over():
                return self._hand_over()
            ending = self._write_page()
            if ending is not None:
                return ending
        return self._publish()

    def _write_page(self) -> Ending | None:
        page = self._fetch()
        if page is None:
            canceled = self.held.heartbeat(self._progress()) is Verdict.CANCEL
            return self._cancel() if canceled else self._hand_over()
        ending = self._cut(page)
        if ending is not None:
            return ending
        rows = self._accept(page)
        if not self.reader.ended and not self._is_budget_spent():
            self.pages.request_ahead(self.at)
        self.row_counts.converted_rows += _converted(rows)
        self.file_encoder.add(rows, self.row_counts)
        if self.reader.ended:
            return self._commit_stored()
        self.preview.add(rows)
        expected = [n for n in (self.at.total_at_end, self.spec.limit) if n is not None]
        self.cutter.expect(self.at.rows, min(expected, default=0))
        if self.cutter.is_position_due:
            self.cutter.note(self._position())
        return self._send_full_parts() or self._commit_stored()

    def _send_full_parts(self) -> Ending | None:
        """Sends pieces until the buffer holds no more than one; the last is never sent here.

        Returns an ending if the slice has ended meanwhile; see `_commit_stored`.
        """
        while (piece := self.cutter.next_full()) is not None:
            self.uploader.send(*piece)
            ending = self._commit_stored()
            if ending is not None:
                return ending
        return None

    def _cut(self, page: Page) -> Ending | None:
        """Divides the export into partitions after its first page, if the export is large enough.

        Returns the ending of this slice if it has ended by that; returns None if the slice must
        continue to read the export without partitions.
        """
        is_first = self.at.pages == 0 and self.export.partition is None
        if not is_first or self.export.partitions is not None or page.total is None:
            return None
        following = self.source.predict_next(self.at.cursor)
        if following is None:
            return None
        pieces = partitions.plan(
            self.spec,
            page.total,
            page_rows=len(page.rows),
            min_rows=self.limits.partition_rows,
            max_partitions=self.limits.partitions,
            first_rows=self.reader.first_rows(page),
            # A page that was fetched as a smaller one tells nothing of the others.
            page_bytes=prefetch.size(page.rows) if page.next == following else 0,
        )
        verdict = self.held.cut(pieces) if pieces else None
        if verdict is None:
            return None
        if verdict is Verdict.CANCEL:
            return self._cancel()
        log.info("export.cut", partitions=len(pieces), total=page.total)
        return Ending.CUT

    def _accept(self, page: Page) -> Sequence[Row]:
        """Returns the rows of the page that belong in the file."""
        return self.reader.accept(page)

    def _must_hand_over(self) -> bool:
        if self.draining() or self.file.is_full:
            return True
        return self._is_budget_spent() and not self.pages.is_requested(self.at.cursor)

    def _is_budget_spent(self) -> bool:
        return self.clock.monotonic() >= self.ends_at

    def _may_wait_for_page(self) -> bool:
        """True unless the worker shuts down or the export is canceled.

        Raises LeaseLost if the lease is lost.
        """
        return not self.draining() and self.held.heartbeat(self._progress()) is Verdict.CONTINUE

    def _may_wait_for_pieces(self) -> bool:
        """True until the worker has been shutting down for MAX_DRAIN_SECONDS.

        Raises LeaseLost if the lease is lost.
        """
        self.held.check()
        if not self.draining():
            return True
        now = self.clock.monotonic()
        if self.draining_since is None:
            self.draining_since = now
        return now - self.draining_since < MAX_DRAIN_SECONDS

    def _fetch(self) -> Page | None:
        try:
            return self._next_page(self.reader.page_after_all_rows())
        except SourceUntrue as error:
            error.fault = error.fault or UNTRUE
            raise

    def _next_page(self, end: Page | None) -> Page | None:
        """Returns the next page, or `end` if the upstream refuses the page after the last one.

        The upstream must refuse it twice: one refusal may be that of an upstream being deployed,
        and the total, which proves the end, is then its only evidence.
        """
        try:
            return self.pages.get(self.at)
        except SourceRefused as error:
            if end is None or error.status not in PAST_THE_END:
                raise
        self.clock.sleep(CONFIRMATION_SECONDS)
        try:
            return self.pages.get(self.at)
        except SourceRefused as error:
            if error.status not in PAST_THE_END:
                raise
        return end

    @property
    def at(self) -> Checkpoint:
        return self.reader.at

    def _commit_stored(self, *, all_: bool = False) -> Ending | None:
        """Commits the checkpoints of all pieces that are stored, in order.

        Waits until another piece may be sent, or with `all_` until all are committed. Returns
        None if the slice can continue, and an ending if the slice has ended: the export was
        canceled, or the worker shuts down and a piece did not arrive in time.
        """
        committed = False
        while (
            stored := self.uploader.next_stored(self._may_wait_for_pieces, all_=all_)
        ) is not None:
            committed = True
            if self._commit(stored.at, stored.closing) is Verdict.CANCEL:
                return self._cancel()
        if self.uploader.is_full(all_=all_):
            return self._release(Ending.HANDED_OVER, clean=False)
        if not committed and self.held.heartbeat(self._progress()) is Verdict.CANCEL:
            return self._cancel()
        return None

    def _commit(self, checkpoint: Checkpoint, closing: Result | None = None) -> Verdict:
        """Stores the checkpoint durably and returns the store's verdict: CONTINUE or CANCEL.

        After this, a crash loses no row or byte before the checkpoint.
        """
        is_due = closing is None and self.clock.monotonic() >= self.preview_at
        # A partition may end within a moment, long before the export.
        if is_due or self.export.partition is not None:
            self.preview.store(checkpoint.rows)
        before = self.saved.file
        verdict = self.held.commit(checkpoint, progress=self._progress(), closing=closing)
        self.advanced = self.advanced or checkpoint.pages > self.saved.pages
        self.saved = checkpoint
        self.file.forget(before, checkpoint.file)
        return verdict

    def _progress(self) -> float:
        return exports.progress(self.at.rows, self.at.total_at_end, self.spec.limit)

    # -- endings -------------------------------------------------------------------------------

    def _publish(self) -> Ending:
        result = self._result(self.file_encoder.close(self.reader.unknown))
        if not self.file.is_begun:
            # The uncommitted pages are in no checkpoint: a worker that takes over and does not
            # find the file reads them again.
            if self._commit(self.saved, closing=result) is Verdict.CANCEL:
                return self._cancel()
            self.file.publish_whole(self.file_encoder.take(result.file_size))
            return self._finish_stored(result)
        return self._upload(self._position(), result)

    def _upload(self, at: Checkpoint, result: Result) -> Ending:
        ending = self._send_full_parts()
        if ending is not None:
            return ending
        self.uploader.send(*self.cutter.last(at), closing=result)
        ending = self._commit_stored(all_=True)
        if ending is not None:
            return ending
        self.file.publish()
        return self._finish_stored(result)

    def _finish_stored(self, result: Result) -> Ending:
        if not self._is_stored(result):
            raise StorageError(
                f"{result.key} was stored, but the object store has no object of "
                f"{result.file_size} bytes there"
            )
        return self._finish(result)

    def _is_stored(self, result: Result) -> bool:
        """True if there is an object of exactly the size of the result at its key."""
        found = self.storage.head(result.key)
        return found is not None and found.size == result.file_size

    def _is_published(self, closing: Result) -> bool:
        """True if the object store has the file that an earlier worker was about to publish.

        If all pieces of that file are committed, it is published first.
        """
        if self.file.is_begun and self.saved.end_reason is not None:
            self.file.publish()
        return self._is_stored(closing)

    def _finish(self, result: Result) -> Ending:
        # Before the end, while the lease is valid: a finished export is never claimed again.
        self._delete_leftovers(keep=result.key)
        self.held.end(
            State.FINISHED,
            result=result,
            keep_file=self.limits.file_retention(self.export),
            keep_record=self.limits.keep_record,
            charged=result.record_count if self.limits.charge_canceled else None,
        )
        log.info(self._event("finished"), rows=result.record_count, bytes=result.file_size)
        return Ending.FINISHED

    def _delete_leftovers(self, *, keep: str) -> None:
        """Deletes all objects of the export except the published file at `keep`.

        An export of a single slice can have none but its preview and its list of ids.
        If the store refuses, a warning is logged and the cleaning deletes the rest later. Raises
        StorageUnavailable if the store does not answer: the export then waits, and its next slice
        finds that the file is published.
        """
        is_single_slice = self.export.checkpoint is None and self.held.clean
        try:
            if (
                not is_single_slice
                or self.spec.ids is not None
                or self.export.partitions is not None
            ):
                self.storage.delete_all(keys.prefix(self.export.id), keep=keep)
            elif self.preview.may_exist:
                self.storage.delete([keys.preview_key(self.export.id)])
        except StorageUnavailable:
            raise
        except StorageError as error:
            log.warning("export.leftovers_not_deleted", reason=str(error))

    def _on_source_error(self, error: SourceError) -> Ending:
        """Waits until the upstream may answer, or fails the export if waiting would not help.

        Rows that contradict each other fail the export at once. An answer that is wrong in the same
        way several times does so too, and so does a refusal, unless pages came well before it.
        """
        wrong = waits.wrong_answers(
            self.export,
            error,
            advanced=self.advanced or self.at.pages > self.saved.pages,
            has_pages=self.at.pages > 0 or self.export.partition is not None,
        )
        if waits.is_final(wrong) if wrong is not None else not isinstance(error, SourceUnavailable):
            return self._fail_by_source(error)
        retry_after = error.retry_after if isinstance(error, SourceUnavailable) else None
        return self._store_uncommitted() or self._pause(
            str(error), clean=True, retry_after=retry_after, wrong_answers=wrong
        )

    def _fail_by_source(self, error: SourceError) -> Ending:
        seen = f" (after {self.at.fetched} rows)" if self.at.fetched else ""
        return self._fail(f"{error}{seen}")

    def _fail(self, error: str, *, reachable: bool = True) -> Ending:
        if reachable:
            self._delete_files()
        self.held.end(State.FAILED, error=error, keep_record=self.limits.keep_record)
        log.warning(self._event("failed"), reason=error)
        return Ending.FAILED

    def _cancel(self) -> Ending:
        self._delete_files()
        self.held.end(
            State.CANCELED,
            keep_record=self.limits.keep_record,
            charged=self.at.rows if self.limits.charge_canceled else None,
        )
        log.info(self._event("canceled"), rows=self.at.rows)
        return Ending.CANCELED

    def _event(self, name: str) -> str:
        """Returns the log event `export.NAME`, or `partition.NAME` in the slice of a partition."""
        return f"{'export' if self.export.partition is None else 'partition'}.{name}"

    def _hand_over(self) -> Ending:
        return self._store_uncommitted() or self._release(Ending.HANDED_OVER, clean=True)

    def _pause(
        self,
        reason: str,
        *,
        clean: bool,
        retry_after: float | None = None,
        wrong_answers: WrongAnswers | None = None,
    ) -> Ending:
        wait = self.limits.wait_or_reason(
            self.export,
            self.held.now(),
            reason,
            advanced=self.advanced,
            at_least=retry_after or 0,
            wrong_answers=wrong_answers,
        )
        if isinstance(wait, timedelta):
            return self._release(
                Ending.WAITING,
                clean=clean,
                retry_in=wait,
                reason=reason,
                wrong_answers=wrong_answers,
            )
        # Without a clean release S3 may be unreachable; the bucket cleanup deletes the files later.
        return self._fail(wait, reachable=clean)

    def _release(
        self,
        ending: Ending,
        *,
        clean: bool,
        retry_in: timedelta | None = None,
        reason: str | None = None,
        wrong_answers: WrongAnswers | None = None,
    ) -> Ending:
        self.held.release(
            clean=clean, retry_in=retry_in, reason=reason, wrong_answers=wrong_answers
        )
        log.info("slice.released", ending=ending, rows=self.saved.rows, reason=reason)
        return ending

    # -- starting points -----------------------------------------------------------------------

    def _open_file(self, state: FileState) -> FileWriter:
        media_type = registry.media_type(self.spec.format, self.spec.compression)
        return self.storage.open_file(
            keys.prefix(self.export.id),
            self.held.fence,
            FileHeaders(media_type, self.spec.file_name),
            state,
            piece_bytes=self.limits.part_size,
        )

    def _continue_file(self, at: Checkpoint, tail: bytearray) -> None:
        """Continues the file after the checkpoint; `tail` holds the bytes after its pieces."""
        self.file_encoder = FileEncoder(self.encoder, self.spec, at, tail, self.spare)
        self.cutter = PieceCutter(self.file_encoder, self.file)

    def _first_checkpoint(self) -> Checkpoint:
        # The default columns of a source are those of its documentation: rows may lack some.
        given = self.spec.column_names
        counts = RowCounts(absent_columns=list(given) if given != self.source.columns else None)
        # By the limit of the whole export, so that the pages of all partitions have one size.
        start = self.source.start(self.export.spec.limit, self.spec.offset)
        return Checkpoint(cursor=start, row_counts=counts)

    def _first_rows(self) -> str:
        partition = self.export.partition
        return partition.first_rows if partition is not None and partition.place else ""

    def _resume(self) -> None:
        """Continues the file of the last slice, and takes it over from a worker that was lost."""
        state = self.file.resume(clean=self.held.clean)
        if state != self.saved.file:
            self._commit(self.saved.with_file(state))
            log.info("slice.took_over", rows=self.saved.rows, attempt=self.export.attempts)

    def _restart_lost_file(self, reason: str) -> Ending:
        """Restarts the export from its first row, because its unfinished file no longer exists.

        A rule of the store may delete a file that stayed unfinished for days. Returns the
        ending of the slice.
        """
        log.warning("export.restarted", reason=reason, rows=self.saved.rows)
        self.held.confirm()
        settled = self.uploader.settled(self._may_wait_for_pieces)
        self._restart()
        return self._pause(reason, clean=settled)

    def _restart(self) -> None:
        self.storage.delete_all(keys.prefix(self.export.id), keep=keys.input_key(self.spec.id))
        self._commit(self._first_checkpoint())

    def _delete_files(self) -> None:
        """Deletes all objects of this export, after the store has confirmed this worker's lease."""
        # A piece that arrived after the deletion would stay until the next bucket cleanup.
        self.uploader.settled(self._may_wait_for_pieces)
        self.held.confirm()
        self.storage.delete_all(keys.prefix(self.export.id))

    def _store_uncommitted(self) -> Ending | None:
        """Stores all pages after the last checkpoint durably, the last ones as a tail object.

        Returns None, or an ending if the slice has ended meanwhile, such as by a cancel.
        """
        ending = self._commit_stored(all_=True)
        if ending is not None:
            return ending
        self.preview.store(self.at.rows)
        if self.at.pages == self.saved.pages:
            return None
        at = self._position()
        taken = self.file_encoder.taken
        state = self.file.pause(taken, self.file_encoder.take(self.file_encoder.size - taken))
        return self._cancel() if self._commit(at.with_file(state)) is Verdict.CANCEL else None

    def _position(self) -> Checkpoint:
        """Returns a checkpoint for the position after the last accepted page.

        Afterwards the encoder's buffer holds all bytes up to that position that are in no piece
        yet.
        """
        return self.reader.checkpoint().evolve(
            row_counts=self.row_counts.copy(),
            packed=self.file_encoder.settle(),
        )

    def _result(self, unknown_ids: Volume | None) -> Result:
        cut = self.spec.rows_per_file is not None
        return Result(
            key=self.file.key,
            file_size=self.file_encoder.size,
            record_count=self.at.rows,
            completeness=self.reader.completeness(),
            row_counts=self.row_counts.copy(),
            pages=self.at.pages,
            volumes=self.file_encoder.volumes if cut else (),
            unknown_ids=unknown_ids,
        )


def _converted(rows: Sequence[Row]) -> int:
    """Returns the number of rows that the source sent in another encoding."""
    if isinstance(rows, native_pages.Rows):
        return 0  # no page in another encoding is cut by the library
    return sum(isinstance(row, ConvertedRow) for row in rows)
