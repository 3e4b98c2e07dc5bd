"""Encoding of rows into the bytes of a file: format, volumes, compression."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial

from exporter.core import threads
from exporter.core.buffers import Buffer
from exporter.core.checkpoints import Checkpoint, Packed, Row, RowCounts, Volume
from exporter.core.exports import Spec
from exporter.formats.base import Format
from exporter.formats.compression import Compression, State, Stream
from exporter.formats.projection import projection
from exporter.formats.registry import COMPRESSIONS


class FileEncoder:
    """Makes the bytes of one file from rows, in any number of slices.

    A buffer holds the bytes that are made but not yet stored; `take` removes them. After `settle()`
    the buffer is complete: another process can resume from it and the returned `Packed` state.

    A volume is a range of the file that is a complete file by itself: `rows_per_file` rows with the
    format's opening and closing bytes. Compressed, it is one gzip member or several zstd frames.
    Volumes can therefore be downloaded as separate files although they are written and published as
    one object. Without `rows_per_file` the whole file is one volume and thus one gzip member,
    because several programs read only the first member.

    Rows are encoded in the caller's thread while a second thread compresses the rows before them.
    Equal rows, added in equal pieces, still give equal bytes.
    """

    def __init__(
        self,
        encoder: Format,
        spec: Spec,
        at: Checkpoint,
        tail: bytearray,
        spare: list[bytearray] | None = None,
    ) -> None:
        """Continues the file after the checkpoint `at`.

        `tail` are the bytes that the last slice stored as such, and may be empty. `spare` is where
        the caller puts what it has taken and does not need any more; see `Buffer`.
        """
        packed = at.packed
        if packed == Packed() and at.rows:
            # Checkpoints of version 0.1.0 have no volumes; they may be resumed during a deploy.
            packed = Packed(is_open=True, rows=at.rows)
        self._encoder = encoder
        self._project = projection(spec.columns)
        self._rows_per_file = spec.rows_per_file
        self._is_open = packed.is_open
        self._state = encoder.state_type.load(packed)
        self._output = _Output(
            COMPRESSIONS[spec.compression], packed, at.uploaded, Buffer(tail, spare)
        )

    @property
    def ready_bytes(self) -> int:
        """Bytes in the buffer, excluding data that is still being compressed."""
        return self._output.ready_bytes

    @property
    def size(self) -> int:
        """Bytes of the file so far, stored or buffered; exact only after `settle` or `close`."""
        return self._output.size

    @property
    def taken(self) -> int:
        """Bytes that were taken from the buffer; those of earlier slices are included."""
        return self._output.taken

    @property
    def volumes(self) -> tuple[Volume, ...]:
        """The volumes that have ended; complete only after `settle` or `close`."""
        return tuple(self._output.volumes)

    def add(self, rows: Sequence[Row], row_counts: RowCounts) -> None:
        """Appends the rows to the file. Raises SourceUntrue if a row is not a JSON object."""
        if self._project is not None:
            rows = self._project(rows, row_counts)
        while rows:
            if not self._is_open:
                self._begin()
            state = self._state
            room = len(rows) if self._rows_per_file is None else self._rows_per_file - state.rows
            some, rows = rows[:room], rows[room:]
            self._encoder.encode(some, row_counts, state, self._output.raw)
            state.rows += len(some)
            if state.rows == self._rows_per_file:
                self._end()
        self._output.run()

    def settle(self) -> Packed:
        """Waits until all added rows are in the buffer, and returns the state of the encoder.

        Another process can resume the file from this state and the buffer.
        """
        if self._is_open:
            self._encoder.pause(self._state, self._output.raw)
        self._output.run()
        compressed = self._output.pause(is_open=self._is_open)
        return Packed(
            is_open=self._is_open,
            rows=self._state.rows,
            state=self._state.dump(),
            crc=compressed.crc,
            length=compressed.length,
            volumes=self.volumes,
        )

    def take(self, size: int) -> bytearray:
        """Removes the first `size` bytes from the buffer and returns them; fewer if it has fewer.

        Waits until all added rows are in the buffer, but does not pause the compression.
        """
        self._output.join()
        return self._output.take(size)

    def close(self, unknown: Sequence[str] = ()) -> Volume | None:
        """Ends the file; returns the volume that lists `unknown`, or None if `unknown` is empty.

        That volume comes after all rows and has one id per line.
        """
        self._output.join()
        if not self._is_open and not self._output.volumes:
            self._begin()
        if self._is_open:
            self._end()
        self._output.run()
        self._output.join()
        if not unknown:
            return None
        begun = self.size
        self._output.begin()
        raw = self._output.raw
        raw += "".join(f"{one}\n" for one in unknown).encode()
        self._output.end()
        self._output.run()
        self._output.join()
        return Volume(len(unknown), begun, self.size - begun)

    def _begin(self) -> None:
        self._is_open = True
        self._output.begin()
        self._encoder.open(self._state, self._output.raw)

    def _end(self) -> None:
        self._encoder.close(self._state, self._output.raw)
        self._output.end(self._state.rows)
        self._is_open = False
        self._state = self._encoder.state_type()


class _Output:
    """Turns the bytes of volumes into the bytes of the file, in order.

    All methods are called from the caller's thread. Without compression the bytes of a volume are
    those of the file: `raw` is the buffer. With compression, `run` starts a second thread, which
    compresses what was appended to `raw`; at most the work of one `run` is pending.
    """

    def __init__(self, compression: Compression, at: Packed, stored: int, buffer: Buffer) -> None:
        self.buffer = buffer
        self.ready_bytes = len(buffer)
        self.taken = stored
        self.volumes = list(at.volumes)
        self._stream = compression.stream and compression.stream(State(at.crc, at.length))
        self._raw = Buffer()
        self._spare_raws: list[Buffer] = []
        self._steps: list[Callable[[], bytes]] = []
        self._under_way: Future[None] | None = None

    @property
    def raw(self) -> Buffer:
        """Takes the bytes of the open volume, before compression."""
        return self.buffer if self._stream is None else self._raw

    @property
    def size(self) -> int:
        return self.taken + len(self.buffer)

    def begin(self) -> None:
        """Begins a volume."""
        if self._stream is not None:
            self._steps.append(self._stream.begin)

    def end(self, rows: int | None = None) -> None:
        """Ends the open volume, and appends it to `volumes`.

        Without `rows`, the number of its rows, the volume is not appended.
        """
        if self._stream is not None:
            self._pass_on(self._stream)
            self._steps.append(self._stream.end)
        if rows is None:
            return
        if self._stream is None:
            self._record(rows)
        else:
            self._steps.append(partial(self._record, rows))

    def run(self) -> None:
        """Starts the work that is left; returns after all work of earlier calls is complete."""
        self.join()
        if self._stream is None:
            return
        self._pass_on(self._stream)
        steps, self._steps = self._steps, []

        def run_all() -> None:
            for step in steps:
                self.buffer += step()

        if steps:
            self._under_way = threads.start(run_all, "compress")

    def join(self) -> None:
        """Waits until all work is complete; raises the error of a failed step."""
        if self._under_way is not None:
            under_way, self._under_way = self._under_way, None
            under_way.result()
        self.ready_bytes = len(self.buffer)

    def pause(self, *, is_open: bool) -> State:
        """Completes all work, so that another process can continue from the returned state."""
        self.join()
        if self._stream is None:
            return State()
        if is_open:
            self.buffer += self._stream.pause()
        self.ready_bytes = len(self.buffer)
        return self._stream.state()

    def take(self, size: int) -> bytearray:
        taken = self.buffer.take(size)
        self.taken += len(taken)
        self.ready_bytes = len(self.buffer)
        return taken

    def _pass_on(self, stream: Stream) -> None:
        if self._raw:
            self._steps.append(partial(self._compress, stream, self._raw))
            self._raw = self._spare_raws.pop() if self._spare_raws else Buffer()

    def _compress(self, stream: Stream, raw: Buffer) -> bytes:
        with raw.view() as data:
            compressed = stream.compress(data)
        raw.truncate(0)
        if not self._spare_raws:
            self._spare_raws.append(raw)
        return compressed

    def _record(self, rows: int) -> bytes:
        begun = sum(volume.size for volume in self.volumes)
        self.volumes.append(Volume(rows, begun, self.size - begun))
        return b""
