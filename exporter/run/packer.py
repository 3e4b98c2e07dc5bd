"""Rows on their way to a file: encoded, cut into volumes, compressed."""

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

    `buffer` holds what was made and is not yet stored. What stands in it after `settle` needs
    nothing of this process any more: with the `Packed` that `settle` returns, another goes on.

    A volume is a stretch of the file that is whole by itself: `rows_per_file` rows with whatever
    the format puts before and after them; compressed, one gzip member or some zstd frames. So
    volumes can be handed out as files of their own, although they are written and published as
    one. Without `rows_per_file` the whole file is one volume: a single member, because several
    programs read only the first of many.

    Rows are encoded in the caller's thread; what came of the rows before is compressed in another
    meanwhile. Equal rows, added in equal pieces, give equal bytes all the same.
    """

    def __init__(self, encoder: Format, spec: Spec, at: Checkpoint, buffer: bytearray) -> None:
        """Goes on behind a checkpoint; `buffer` is what the last slice left over there."""
        packed = at.packed
        if packed == Packed() and at.rows:
            # Version 0.1.0 knew no volumes, and its exports may be under way during a deploy.
            packed = Packed(is_open=True, rows=at.rows)
        self._encoder = encoder
        self._most = spec.rows_per_file
        self._rows = packed.rows
        self._is_open = packed.is_open
        self._press = _Compressor(spec.compression, packed, at.uploaded, buffer)

    @property
    def buffer(self) -> bytearray:
        """What is not yet stored; whole after `settle` and `close` only."""
        return self._press.buffer

    @property
    def made(self) -> int:
        """Bytes in the buffer, without what is still being compressed."""
        return self._press.made

    @property
    def size(self) -> int:
        """Bytes of the file so far, stored or not; whole as `buffer` is."""
        return self._press.size

    @property
    def volumes(self) -> tuple[Volume, ...]:
        """Those that have ended, when the buffer was last whole."""
        return tuple(self._press.volumes)

    def add(self, rows: Sequence[Row], row_counts: RowCounts) -> None:
        """Append the rows. Raises SourceUntrue as `Format.encode` does."""
        steps: list[Callable[[], None]] = []
        while rows:
            if not self._is_open:
                steps += self._begin()
            room = len(rows) if self._most is None else self._most - self._rows
            some, rows = rows[:room], rows[room:]
            data = self._encoder.encode(some, row_counts, self._rows)
            steps.append(partial(self._press.compress, data))
            self._rows += len(some)
            if self._rows == self._most:
                steps += self._end()
        self._press.run(steps)

    def settle(self) -> Packed:
        """Complete the buffer to a place where another process can go on, and say where it is."""
        self._press.join()
        crc, length = self._press.pause(is_open=self._is_open)
        return Packed(
            is_open=self._is_open,
            rows=self._rows,
            crc=crc,
            length=length,
            volumes=self.volumes,
        )

    def taken(self) -> None:
        """The buffer was given away; the next one begins."""
        self._press.empty()

    def close(self, unknown: Sequence[str] = ()) -> Volume | None:
        """End the file; ids that the source did not have follow, as a volume of their own.

        Returns that volume, if there are any.
        """
        steps: list[Callable[[], None]] = []
        self._press.join()
        if not self._is_open and not self._press.volumes:
            steps += self._begin()
        if self._is_open:
            steps += self._end()
        self._press.run(steps)
        self._press.join()
        if not unknown:
            return None
        begun = self.size
        self._press.begin("".join(f"{one}\n" for one in unknown).encode())
        self._press.end(b"")
        return Volume(len(unknown), begun, self.size - begun)

    def _begin(self) -> list[Callable[[], None]]:
        self._is_open = True
        return [partial(self._press.begin, self._encoder.open())]

    def _end(self) -> list[Callable[[], None]]:
        rows, self._rows = self._rows, 0
        self._is_open = False
        return [partial(self._press.end, self._encoder.close(rows), rows)]


class _Compressor:
    """Turns encoded rows into the file's bytes, step by step, in order.

    `run` and `join` are for the caller's thread; the steps are taken in one of their own, if they
    compress anything, and at most those of one `run` are ahead of the caller.
    """

    def __init__(self, name: str, at: Packed, stored: int, buffer: bytearray) -> None:
        self.buffer = buffer
        self.made = len(buffer)
        self.volumes = list(at.volumes)
        self._stored = stored
        self._stream = compression.stream(name, at)
        self._is_slow = name != "none"
        self._under_way: Future[None] | None = None

    @property
    def size(self) -> int:
        return self._stored + len(self.buffer)

    def run(self, steps: Sequence[Callable[[], None]]) -> None:
        """Take these steps after those before, which are taken when this returns."""

        def take_all() -> None:
            for step in steps:
                step()

        self.join()
        if self._is_slow:
            self._under_way = threads.start(take_all, "compress")
        else:
            take_all()
            self.made = len(self.buffer)

    def join(self) -> None:
        """Return when all steps are taken; raises what one of them raised."""
        if self._under_way is not None:
            under_way, self._under_way = self._under_way, None
            under_way.result()
        self.made = len(self.buffer)

    def begin(self, head: bytes) -> None:
        self.buffer += self._stream.begin()
        self.compress(head)

    def compress(self, data: bytes) -> None:
        self.buffer += self._stream.compress(data)

    def end(self, tail: bytes, rows: int | None = None) -> None:
        """End a volume; without `rows` it is one of those that are not counted."""
        self.compress(tail)
        self.buffer += self._stream.end()
        if rows is not None:
            begun = sum(volume.size for volume in self.volumes)
            self.volumes.append(Volume(rows, begun, self.size - begun))

    def pause(self, *, is_open: bool) -> tuple[int, int]:
        if is_open:
            self.buffer += self._stream.pause()
        self.made = len(self.buffer)
        return self._stream.state()

    def empty(self) -> None:
        self._stored += len(self.buffer)
        self.buffer = bytearray()
        self.made = 0
