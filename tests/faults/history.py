"""What clients were told, and whether it was true."""

from __future__ import annotations

import hashlib
import random
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, cast

import httpx
import zstandard

from exporter.cli.client import TERMINAL, ServiceError, ServiceSilent, count_rows, download
from exporter.clock import SystemClock
from exporter.core.exports import Export, Spec
from exporter.errors import StorageUnavailable, StoreUnavailable
from exporter.maintenance import cleaning
from exporter.storage.keys import ROOT, prefix
from tests.faults.cluster import Cluster

MUST_BE_ZERO = (
    *("lost", "failed", "doubled", "short", "byte-unequal", "went back", "revived", "missing"),
    *("orphans after cleaning", "entries left in Redis"),
)


def kinds(limits: Iterable[int]) -> dict[str, dict[str, Any]]:
    """Requests by name: both formats at each limit, each compressed too, a search, and a file below
    one part."""
    found: dict[str, dict[str, Any]] = {}
    most = max(limits)
    for number in limits:
        for name, compression in (("csv", "gzip"), ("json", "zstd")):
            plain = {"format": name, "query": {}, "limit": number}
            found[f"{name} {number}"] = plain
            found[f"{name} {number} {compression}"] = {**plain, "compression": compression}
    remote = {"location_types": ["Remote"]}
    found["csv remote"] = {"format": "csv", "query": remote, "limit": most}
    narrow = ["_id", "job_title", "date_posted"]
    found["csv narrow"] = {"format": "csv", "query": {}, "limit": most, "columns": narrow}
    return {name: {"source": "board", **request} for name, request in found.items()}


class Calm(NamedTuple):
    """The file of a request when nothing goes wrong, unpacked."""

    sha256: str
    size: int
    rows: int


class _Got(NamedTuple):
    """A file that was downloaded."""

    sha256: str
    size: int
    """Of what it holds, unpacked; the digest is of that."""
    received: int
    """Bytes that came."""


def calm_files(
    cluster: Cluster, requests: Mapping[str, Mapping[str, Any]], folder: Path
) -> dict[str, Calm]:
    """Each request exported once, its rows counted in the file by the standard library."""
    client = next(iter(cluster.clients.values()))
    created = {name: client.create(request)["id"] for name, request in requests.items()}
    found: dict[str, Calm] = {}
    for name, export_id in created.items():
        request = requests[name]
        record = client.wait(export_id, lambda _: None)
        assert record["state"] == "finished", record
        packed, file = folder / "packed", folder / "calm"
        size = record["result"]["file_size"]
        download(record["result"]["download_url"], packed, size, lambda _: None)
        with packed.open("rb") as pieces, file.open("wb") as out:
            for piece in unpacked(iter(lambda: pieces.read(2**20), b""), _compression(request)):
                out.write(piece)
        rows = count_rows(file, request["format"])
        assert rows == record["result"]["record_count"] > 0, record
        with file.open("rb") as whole:
            digest = hashlib.file_digest(whole, "sha256").hexdigest()
        found[name] = Calm(digest, file.stat().st_size, rows)
        plain = name.removesuffix(f" {_compression(request)}")
        assert found[name] == found.get(plain, found[name]), (name, found)
        packed.unlink()
        file.unlink()
    return found


def unpacked(pieces: Iterable[bytes], compression: str) -> Iterator[bytes]:
    """What a file of that compression holds; all of a gzip file is one member, as some readers
    want it. Raises ValueError if bytes are missing or left over."""
    if compression == "none":
        yield from pieces
        return
    gzip = zlib.decompressobj(31)
    zstd = zstandard.ZstdDecompressor().decompressobj(read_across_frames=True)
    for piece in pieces:
        yield gzip.decompress(piece) if compression == "gzip" else zstd.decompress(piece)
    whole = gzip.eof and not gzip.unused_data if compression == "gzip" else not zstd.unused_data
    if not whole:
        raise ValueError(f"the {compression} file ends too early, or something follows its end")


def _compression(request: Mapping[str, Any]) -> str:
    return cast("str", request.get("compression", "none"))


@dataclass
class Asked:
    """An export as its owner sees it."""

    user: str
    id: str
    kind: str
    progress: float = 0.0
    end: tuple[str, str | None] | None = None
    """State and time of the end, once one was told."""
    checked: bool = False
    key: str | None = None
    """Where the file is, until it is deleted here."""


@dataclass
class History:
    """Posts, polls, downloads and compares; `table` says what went wrong.

    With `discard` a file is deleted once it is compared, to bound the disk. Only the thread that
    runs `work` or `settle` may use it; counts may be read by any.
    """

    cluster: Cluster
    calm: Mapping[str, Calm]
    requests: Mapping[str, Mapping[str, Any]]
    seed: int = 1
    discard: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    complaints: list[str] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._before = {export.id for export in self._recorded()}

    # -- what clients do -----------------------------------------------------------------------

    def work(self, at_once: int, stop: threading.Event) -> None:
        """Keep so many exports under way until told to stop."""
        while not stop.is_set():
            if len(self.unchecked) < at_once:
                self.post(self._random.choice(sorted(self.requests)))
            self.poll()
            stop.wait(0.3)

    def post(self, kind: str) -> bool:
        """Create an export; False when nobody answered, and it may exist or not."""
        user = self._random.choice(sorted(self.cluster.clients))
        try:
            record = self.cluster.clients[user].create(self.requests[kind])
        except ServiceSilent:
            self.counts["posts unanswered"] += 1
            return False
        self.asked.append(Asked(user, record["id"], kind))
        self.counts["exports"] += 1
        return True

    @property
    def unchecked(self) -> list[Asked]:
        return [one for one in self.asked if not one.checked]

    def poll(self) -> None:
        """Ask once for every export that is not yet terminal and compared."""
        for one in self.unchecked:
            record = self._get(one)
            if record is not None and one.end is not None:
                self._check(one, record)

    def settle(self, patience: float) -> None:
        """Poll until all are terminal and compared; what is not by then is lost."""
        deadline = time.monotonic() + patience
        self._find_unanswered()
        while self.unchecked and time.monotonic() < deadline:
            self.poll()
            time.sleep(0.3)
        for one in self.unchecked:
            self._complain("lost", one, "no end, or no file of it, when patience was over")
            one.checked = True

    def _get(self, one: Asked) -> dict[str, Any] | None:
        try:
            record = self.cluster.clients[one.user].get(one.id)
        except ServiceSilent:
            return None
        except ServiceError as error:
            self._complain("lost", one, str(error))
            one.checked = True
            return None
        if record["progress"] < one.progress:
            self._complain("went back", one, f"from {one.progress} to {record['progress']}")
        one.progress = record["progress"]
        end = (record["state"], record["completed_at"])
        if one.end is None:
            one.end = end if record["state"] in TERMINAL else None
        elif one.end != end:
            self._complain("revived", one, f"it ended as {one.end} and is {end}")
        return record

    def _find_unanswered(self) -> None:
        """Exports whose owner never heard that they were accepted must end as well."""
        known = self._before | {one.id for one in self.asked}
        for export in self._recorded():
            if export.id not in known:
                self.counts["accepted unheard"] += 1
                self.asked.append(Asked(export.user_id, export.id, self._kind(export.spec)))

    # -- whether it was true -------------------------------------------------------------------

    def _check(self, one: Asked, record: Mapping[str, Any]) -> None:
        if record["state"] != "finished":
            self._complain("failed", one, f"{record['state']}: {record['error']}")
            one.checked = True
            return
        calm, result = self.calm[one.kind], record["result"]
        try:
            got = self._downloaded(result["download_url"], _compression(self.requests[one.kind]))
            stored = self.cluster.store.get(one.id)
            assert stored is not None
            assert stored.result is not None
            one.key = stored.result.key
            if self.discard:
                self.cluster.storage.delete([one.key])
                one.key = None
        except (httpx.HTTPError, StorageUnavailable, StoreUnavailable):
            return  # S3 or Redis is away: at the next poll
        except (ValueError, zlib.error, zstandard.ZstdError) as error:
            self._complain("byte-unequal", one, str(error))
            one.checked = True
            return
        said = (result["record_count"], result["file_size"])
        beside = (said[0] - calm.rows, got.received - said[1], got.size - calm.size)
        if got.sha256 != calm.sha256:
            self._complain("byte-unequal", one, f"{got.size} bytes, {calm.size} when calm")
        if min(beside) < 0:
            self._complain("short", one, f"said {said}, got {got}, calm {calm}")
        if max(beside) > 0:
            self._complain("doubled", one, f"said {said}, got {got}, calm {calm}")
        one.checked = True
        self.counts["finished"] += 1
        self.counts["rows"] += calm.rows
        self.counts["bytes"] += got.received

    def _downloaded(self, url: str, compression: str) -> _Got:
        digest, size = hashlib.sha256(), 0
        with httpx.stream("GET", url, timeout=30, trust_env=False) as response:
            response.raise_for_status()
            for chunk in unpacked(response.iter_raw(), compression):
                digest.update(chunk)
                size += len(chunk)
            return _Got(digest.hexdigest(), size, response.num_bytes_downloaded)

    def audit(self) -> None:
        """After the end: nobody changed their mind, and the bucket holds the files and no more."""
        for one in self.asked:
            self._get(one)
        kept = {one.key for one in self.asked if one.key is not None}
        left = self._bucket()
        for key in sorted(kept - left):
            self.counts["missing"] += 1
            self.complaints.append(f"missing: {key}")
        self.counts["orphans before cleaning"] = len(left - kept)
        self.complaints += [f"orphan before cleaning: {key}" for key in sorted(left - kept)]
        cleaning.clean(self.cluster.store, self.cluster.storage, SystemClock(), grace=timedelta(0))
        self.counts["orphans after cleaning"] = len(self._bucket() - kept)
        client = self.cluster.store.client
        self.counts["entries left in Redis"] = (
            client.zcard("exporter:leases")
            + client.zcard("exporter:waiting")
            + client.hlen("exporter:running")
            + sum(map(int, cast("list[bytes]", client.hvals("exporter:lined"))))
        )

    def wrong(self) -> dict[str, int]:
        """What must be zero and is not."""
        return {name: self.counts[name] for name in MUST_BE_ZERO if self.counts[name]}

    def _bucket(self) -> set[str]:
        """Objects, and open uploads marked so, but for those of exports before this history."""
        storage = self.cluster.storage
        found = {info.key: info.key for info in storage.objects(ROOT)}
        found |= {f"open:{one.key}": one.key for one in storage.open_uploads(ROOT)}
        before = tuple(map(prefix, self._before))
        return {name for name, key in found.items() if not key.startswith(before)}

    def _recorded(self) -> list[Export]:
        """Every export of our users, as Redis has it."""
        found: list[Export] = []
        for user in self.cluster.clients:
            cursor = None
            while True:
                page = self.cluster.store.list(user, limit=100, cursor=cursor)
                found += page.exports
                cursor = page.next_cursor
                if cursor is None:
                    break
        return found

    def _kind(self, spec: Spec) -> str:
        """The name of the request that made this export."""
        by_columns = sorted(self.requests.items(), key=lambda one: "columns" not in one[1])
        for name, request in by_columns:
            if (
                (spec.format, spec.limit) == (request["format"], request["limit"])
                and bool(spec.query) == bool(request["query"])
                and tuple(request.get("columns", spec.columns)) == spec.columns
                and _compression(request) == spec.compression
            ):
                return name
        raise AssertionError(f"nobody here asked for {spec}")

    def _complain(self, what: str, one: Asked, why: str) -> None:
        self.counts[what] += 1
        self.complaints.append(f"{what}: {one.id} ({one.kind}): {why}")
