"""Encoding of rows into the bytes of a file: format, volumes, compression."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial

from exporter.core import threads
from exporter.core.checkpoints import Checkpoint, Packed, Row, RowCounts, Volume
from exporter.core.exports import Spec
from exporter.formats import compression
from exporter.formats.base import Format


class FileEncoder:
    """Makes the bytes of one file from rows, in any number of slices.

    `buffer` holds the bytes that are made but not yet stored. After `settle()` the buffer is
    complete: another process can resume from it and the returned `Packed` state.

    A volume is a range of the file that is a complete file by itself: `rows_per_file` rows with the
    format's opening and closing bytes. Compressed, it is one gzip member or several zstd frames.
    Volumes can therefore be downloaded as separate files although they are written and published as
    one object. Without `rows_per_file` the whole file is one volume and thus one gzip member,
    because several programs read only the first member.

    Rows are encoded in the caller's thread while a second thread compresses the rows before them.
    Equal rows, added in equal pieces, still give equal bytes.
    """

    def __init__(self, encoder: Format, spec: Spec, at: Checkpoint, buffer: bytearray) -> None:
        """Continues the file after the checkpoint `at`.

        `buffer` holds the tail that the last slice stored; it is empty without a tail.
        """
        packed = at.packed
        if packed == Packed() and at.rows:
            # Checkpoints of version 0.1.0 have no volumes; they may be resumed during a deploy.
            packed = Packed(is_open=True, rows=at.rows)
        self._encoder = encoder
        self._rows_per_file = spec.rows_per_file
        self._rows = packed.rows
        self._is_open = packed.is_open
        self._compressor = _Compressor(spec.compression, packed, at.uploaded, buffer)

    @property
    def buffer(self) -> bytearray:
        """Encoded bytes that are not yet stored.

        Rows that are still being compressed are missing until `settle` or `close` has returned.
        """
        return self._compressor.buffer

    @property
    def ready_bytes(self) -> int:
        """Bytes in the buffer, excluding data that is still being compressed."""
        return self._compressor.ready_bytes

    @property
    def size(self) -> int:
        """Bytes of the file so far, stored or buffered; exact only after `settle` or `close`."""
        return self._compressor.size

    @property
    def taken(self) -> int:
        """Bytes that were taken from the buffer; those of earlier slices are included."""
        return self._compressor.taken

    @property
    def volumes(self) -> tuple[Volume, ...]:
        """The volumes that have ended; complete only after `settle` or `close`."""
        return tuple(self._compressor.volumes)

    def add(self, rows: Sequence[Row], row_counts: RowCounts) -> None:
        """Appends the rows to the file. Raises SourceUntrue if a row is not a JSON object."""
        steps: list[Callable[[], None]] = []
        while rows:
            if not self._is_open:
                steps += self._begin()
            room = len(rows) if self._rows_per_file is None else self._rows_per_file - self._rows
            some, rows = rows[:room], rows[room:]
            data = self._encoder.encode(some, row_counts, self._rows)
            steps.append(partial(self._compressor.compress, data))
            self._rows += len(some)
            if self._rows == self._rows_per_file:
                steps += self._end()
        self._compressor.run(steps)

    def settle(self) -> Packed:
        """Waits until all added rows are in the buffer, and returns the state of the encoder.

        Another process can resume the file from this state and the buffer.
        """
        self._compressor.join()
        crc, length = self._compressor.pause(is_open=self._is_open)
        return Packed(
            is_open=self._is_open,
            rows=self._rows,
            crc=crc,
            length=length,
            volumes=self.volumes,
        )

    def take(self, size: int) -> bytearray:
        """Removes the first `size` bytes from the buffer and returns them; fewer if it has fewer.

        Waits until all added rows are in the buffer, but does not pause the compression.
        """
        self._compressor.join()
        return self._compressor.take(size)

    def close(self, unknown: Sequence[str] = ()) -> Volume | None:
        """Ends the file; returns the volume that lists `unknown`, or None if `unknown` is empty.

        That volume comes after all rows and has one id per line.
        """
        steps: list[Callable[[], None]] = []
        self._compressor.join()
        if not self._is_open and not self._compressor.volumes:
            steps += self._begin()
        if self._is_open:
            steps += self._end()
        self._compressor.run(steps)
        self._compressor.join()
        if not unknown:
            return None
        begun = self.size
        self._compressor.begin("".join(f"{one}\n" for one in unknown).encode())
        self._compressor.end(b"")
        return Volume(len(unknown), begun, self.size - begun)

    def _begin(self) -> list[Callable[[], None]]:
        self._is_open = True
        return [partial(self._compressor.begin, self._encoder.open())]

    def _end(self) -> list[Callable[[], None]]:
        rows, self._rows = self._rows, 0
        self._is_open = False
        return [partial(self._compressor.end, self._encoder.close(rows), rows)]


class _Compressor:
    """Turns encoded rows into the bytes of the file, step by step, in order.

    `run` and `join` are called from the caller's thread. The steps run in a second thread if the
    file is compressed. At most the steps of one `run` are pending.
    """

    def __init__(self, name: str, at: Packed, stored: int, buffer: bytearray) -> None:
        self.buffer = buffer
        self.ready_bytes = len(buffer)
        self.taken = stored
        self.volumes = list(at.volumes)
        self._stream = compression.stream(name, at)
        self._uses_thread = name != "none"
        self._under_way: Future[None] | None = None

    @property
    def size(self) -> int:
        return self.taken + len(self.buffer)

    def run(self, steps: Sequence[Callable[[], None]]) -> None:
        """Starts these steps; returns after all steps of earlier calls are complete."""

        def run_all() -> None:
            for step in steps:
                step()

        self.join()
        if self._uses_thread:
            self._under_way = threads.start(run_all, "compress")
        else:
            run_all()
            self.ready_bytes = len(self.buffer)

    def join(self) -> None:
        """Waits until all steps are complete; raises the error of a failed step."""
        if self._under_way is not None:
            under_way, self._under_way = self._under_way, None
            under_way.result()
        self.ready_bytes = len(self.buffer)

    def begin(self, head: bytes) -> None:
        self.buffer += self._stream.begin()
        self.compress(head)

    def compress(self, data: bytes) -> None:
        self.buffer += self._stream.compress(data)

    def end(self, tail: bytes, rows: int | None = None) -> None:
        """Ends the open volume with the bytes `tail`, and appends it to `volumes`.

        Without `rows`, the number of its rows, the volume is not appended.
        """
        self.compress(tail)
        self.buffer += self._stream.end()
        if rows is not None:
            begun = sum(volume.size for volume in self.volumes)
            self.volumes.append(Volume(rows, begun, self.size - begun))

    def pause(self, *, is_open: bool) -> tuple[int, int]:
        if is_open:
            self.buffer += self._stream.pause()
        self.ready_bytes = len(self.buffer)
        return self._stream.state()

    def take(self, size: int) -> bytearray:
        # The part is nearly the whole buffer: copying the few bytes after it is cheaper.
        rest = self.buffer[size:]
        del self.buffer[size:]
        taken, self.buffer = self.buffer, rest
        self.taken += len(taken)
        self.ready_bytes = len(rest)
        return taken
