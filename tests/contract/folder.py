"""A toy destination: files in a folder, written at an offset, as over SFTP.

An unfinished file lies in the folder `unfinished`. A worker that takes over seals it by renaming
it, so that its former worker finds it neither to write nor to publish, and copies its bytes.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

import msgspec

from exporter.clock import Clock
from exporter.core.checkpoints import FileState, Part
from exporter.errors import ObjectExists, StorageError, UploadGone
from exporter.storage import registry
from exporter.storage.base import (
    FileHeaders,
    ObjectInfo,
    ObjectRange,
    Store,
    UnfinishedFile,
    check_guard,
)

MAX_LINK_SECONDS = 7 * 24 * 3600


class _Note(msgspec.Struct):
    headers: FileHeaders
    begun_at: datetime


class FolderStorage:
    """Stores every object as a file below `root`."""

    def __init__(self, root: Path, clock: Clock) -> None:
        self.files, self.partial, self.notes = (
            root / name for name in ("files", "unfinished", "notes")
        )
        self._root = root
        self.clock = clock
        self._secret = secrets.token_bytes(16)

    def open(self) -> None:
        """Does nothing."""

    def check(self) -> None:
        check_guard()

    def open_file(
        self,
        folder: str,
        fence: str,
        headers: FileHeaders,
        state: FileState,
        *,
        piece_bytes: int,
    ) -> FolderFile:
        return FolderFile(self, f"{folder}{fence}/", headers, state, piece_bytes)

    def put_small(self, key: str, data: bytes | bytearray, headers: FileHeaders) -> None:
        check_guard()
        self.note(key, headers)
        unnamed = _under(self._root, secrets.token_hex(8))
        unnamed.write_bytes(data)
        try:
            os.link(unnamed, _under(self.files, key))
        except FileExistsError:
            if self.read(key) != data:
                raise ObjectExists(key) from None
        finally:
            unnamed.unlink()

    def read(self, key: str) -> bytes:
        check_guard()
        try:
            return (self.files / key).read_bytes()
        except FileNotFoundError as error:
            raise StorageError(f"NoSuchKey: {key}") from error

    def stream(self, key: str, start: int, end: int) -> Iterator[bytes]:
        if self.head(key) is None:
            raise StorageError(f"NoSuchKey: {key}")
        return _pieces(self.files / key, start, end)

    def head(self, key: str) -> ObjectInfo | None:
        check_guard()
        path = self.files / key
        return self._info(path) if path.is_file() else None

    def delete(self, keys: Sequence[str]) -> None:
        check_guard()
        for key in keys:
            (self.files / key).unlink(missing_ok=True)

    def delete_all(self, prefix: str, *, keep: str | None = None) -> None:
        for file in self.unfinished(prefix):
            self.discard(file)
        self.delete([info.key for info in self.objects(prefix) if info.key != keep])

    def objects(self, prefix: str) -> Iterator[ObjectInfo]:
        check_guard()
        for path in _walk(self.files, prefix):
            yield self._info(path)

    def unfinished(self, prefix: str) -> Iterator[UnfinishedFile]:
        check_guard()
        for path in _walk(self.partial, prefix):
            key = str(path.relative_to(self.partial)).removesuffix(".sealed")
            yield UnfinishedFile(key, path.name, self._noted(key).begun_at)

    def discard(self, file: UnfinishedFile) -> None:
        check_guard()
        (self.partial / file.key).with_name(file.upload_id).unlink(missing_ok=True)

    def presign(self, key: str, seconds: int) -> str:
        expires = int(self.clock.now().timestamp()) + min(seconds, MAX_LINK_SECONDS)
        return f"folder:///{quote(key)}?expires={expires}&token={self._token(key, expires)}"

    def fetch(self, url: str) -> tuple[int, dict[str, str], bytes]:
        """Returns the answer to a link: status, headers, body."""
        parts, query = urlsplit(url), parse_qs(urlsplit(url).query)
        key, expires = unquote(parts.path)[1:], int(query["expires"][0])
        if not hmac.compare_digest(query["token"][0], self._token(key, expires)):
            return 403, {}, b"another file"
        if self.clock.now().timestamp() >= expires:
            return 403, {}, b"expired"
        if self.head(key) is None:
            return 404, {}, b"NoSuchKey"
        body, headers = self.read(key), self._noted(key).headers
        return (
            200,
            {
                "content-type": headers.content_type,
                "content-disposition": headers.disposition,
                "content-length": str(len(body)),
            },
            body,
        )

    def note(self, key: str, headers: FileHeaders) -> None:
        """Keeps the headers of a file, and when it was begun."""
        path = _under(self.notes, key)
        path.write_bytes(msgspec.json.encode(_Note(headers, self.clock.now())))

    def _noted(self, key: str) -> _Note:
        return msgspec.json.decode((self.notes / key).read_bytes(), type=_Note)

    def _info(self, path: Path) -> ObjectInfo:
        data = path.read_bytes()
        etag = hashlib.md5(data, usedforsecurity=False).hexdigest()
        return ObjectInfo(str(path.relative_to(self.files)), len(data), etag)

    def _token(self, key: str, expires: int) -> str:
        return hmac.new(self._secret, f"{expires}:{key}".encode(), "sha256").hexdigest()


class FolderFile:
    """Writes a file at offsets; every piece may have any size."""

    def __init__(
        self,
        storage: FolderStorage,
        own: str,
        headers: FileHeaders,
        state: FileState,
        piece_bytes: int,
    ) -> None:
        self._storage = storage
        self._own = own
        self._headers = headers
        self._state = state
        self._sizes = [part.size for part in state.parts]
        self.piece_size = piece_bytes
        self.is_full = False

    @property
    def key(self) -> str:
        name = self._headers.file_name.replace("/", "_").replace("\0", "_")
        name = name.encode(errors="replace").decode()
        return self._state.key or f"{self._own}{name}"

    @property
    def is_begun(self) -> bool:
        return self._state.key is not None

    def expect(self, size: int) -> None:
        """Does nothing: a file has no limit."""

    def resume(self, *, clean: bool) -> FileState:
        before = self._state
        if before.key is None:
            return before
        if clean:
            self._at(before.key, lambda fd: os.ftruncate(fd, before.uploaded))
            return before
        partial = self._storage.partial / before.key
        sealed = partial.with_name(f"{partial.name}.sealed")
        check_guard()
        if partial.exists():
            partial.rename(sealed)
        if not sealed.exists() or sealed.stat().st_size < before.uploaded:
            raise UploadGone(f"{before.key} is gone")
        self._state = FileState()
        key = self._begin()
        shutil.copyfile(sealed, self._storage.partial / key)
        os.truncate(self._storage.partial / key, before.uploaded)
        self._state = msgspec.structs.replace(self._state, parts=before.parts)
        return self._state

    def read_rest(self) -> bytearray:
        return bytearray()

    def append(self, data: bytearray) -> Store:
        key, offset = self._begin(), sum(self._sizes)
        self._sizes.append(len(data))
        return lambda: self._at(key, lambda fd: os.pwrite(fd, data, offset))

    def copy(self, ranges: Sequence[ObjectRange]) -> Store:
        key, offset = self._begin(), sum(self._sizes)
        self._sizes.append(sum(len(one.span) for one in ranges))

        def store() -> None:
            at = offset
            for one in ranges:
                span = one.span
                for piece in self._storage.stream(one.source.key, span.start, span.stop):
                    self._at(key, lambda fd, data=piece, at=at: os.pwrite(fd, data, at))  # type: ignore[misc]
                    at += len(piece)

        return store

    def copy_sizes(self, sources: Sequence[ObjectInfo]) -> range:
        return range(1, 1 << 30)

    def state(self, position: int) -> FileState:
        return msgspec.structs.replace(self._state, parts=self._parts(position))

    def pause(self, position: int, rest: bytearray) -> FileState:
        self.append(rest)()
        return self.state(position + len(rest))

    def publish(self) -> None:
        check_guard()
        path, size = _under(self._storage.files, self.key), sum(self._sizes)
        partial = self._storage.partial / self.key
        if partial.exists():
            partial.rename(path)
        if not path.exists() or path.stat().st_size != size:
            raise UploadGone(f"{self.key} is gone")

    def publish_whole(self, data: bytearray) -> None:
        self._storage.put_small(self.key, data, self._headers)

    def forget(self, before: FileState, now: FileState) -> None:
        if before.key is not None and before.key != now.key:
            name = Path(before.key).name
            for one in name, f"{name}.sealed":
                self._storage.discard(UnfinishedFile(before.key, one, self._storage.clock.now()))

    def _begin(self) -> str:
        key = self.key
        if not self.is_begun:
            check_guard()
            self._storage.note(key, self._headers)
            _under(self._storage.partial, key).touch()
            self._state = FileState(key=key, upload_id=key)
        return key

    def _at(self, key: str, write: Callable[[int], object]) -> None:
        check_guard()
        try:
            fd = os.open(self._storage.partial / key, os.O_RDWR)
        except FileNotFoundError as error:
            raise UploadGone(f"{key} is gone") from error
        try:
            write(fd)
        finally:
            os.close(fd)

    def _parts(self, position: int | None = None) -> tuple[Part, ...]:
        missing = sum(self._sizes) if position is None else position
        parts = []
        for size in self._sizes:
            if missing > 0:
                parts.append(Part("", min(size, missing)))
            missing -= size
        return tuple(parts)


def connect(url: str, _settings: object, clock: Clock) -> FolderStorage:
    """Returns the storage in the folder of a URL `folder:/PATH`."""
    return FolderStorage(Path(unquote(urlsplit(url).path)), clock)


registry.DESTINATIONS["folder"] = connect
INSIDE = sorted({*registry.DESTINATIONS} - {"s3"})
"""Schemes of the destinations that need no server."""


def _under(root: Path, key: str) -> Path:
    path = root / key
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _walk(root: Path, prefix: str) -> list[Path]:
    found = [path for path in root.rglob("*") if path.is_file()]
    return sorted((path for path in found if _key(path, root).startswith(prefix)), key=str)


def _key(path: Path, root: Path) -> str:
    return str(path.relative_to(root))


def _pieces(path: Path, start: int, end: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(start)
        while start < end and (piece := file.read(min(end - start, 1 << 16))):
            start += len(piece)
            yield piece
