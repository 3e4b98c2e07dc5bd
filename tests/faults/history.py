"""Records what clients observe of their exports, and checks each observation and each file."""

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

from exporter import client as clients
from exporter.cli.remote import count_rows
from exporter.client import ApiError, ConnectionFailed, ServerFailed
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


def request_kinds(limits: Iterable[int]) -> dict[str, dict[str, Any]]:
    """Returns requests by name.

    CSV and JSON at each limit, both also compressed; a search; and a file smaller than one part.
    """
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


class ReferenceFile(NamedTuple):
    """Decompressed file of a request, exported without any faults."""

    sha256: str
    size: int
    rows: int


class _Download(NamedTuple):
    """Digest and sizes of a downloaded file."""

    sha256: str
    size: int
    """Decompressed bytes; the digest is of these bytes."""
    received: int
    """Bytes received."""


def export_references(
    cluster: Cluster, requests: Mapping[str, Mapping[str, Any]], folder: Path
) -> dict[str, ReferenceFile]:
    """Exports each request once without faults, and counts the rows with the standard library."""
    client = next(iter(cluster.clients.values()))
    created = {name: client.create(**request).id for name, request in requests.items()}
    found: dict[str, ReferenceFile] = {}
    for name, export_id in created.items():
        request = requests[name]
        record = client.wait(export_id)
        assert record.result is not None, record
        packed, file = folder / "packed", folder / "calm"
        client.download(record, packed)
        with packed.open("rb") as pieces, file.open("wb") as out:
            for piece in decompress(iter(lambda: pieces.read(2**20), b""), _compression(request)):
                out.write(piece)
        rows = count_rows(file, request["format"])
        assert rows == record.result.record_count > 0, record
        with file.open("rb") as whole:
            digest = hashlib.file_digest(whole, "sha256").hexdigest()
        found[name] = ReferenceFile(digest, file.stat().st_size, rows)
        plain = name.removesuffix(f" {_compression(request)}")
        assert found[name] == found.get(plain, found[name]), (name, found)
        packed.unlink()
        file.unlink()
    return found


def decompress(pieces: Iterable[bytes], compression: str) -> Iterator[bytes]:
    """Yields the decompressed bytes of a file.

    A gzip file must have exactly one member, because some readers support no more. Raises
    ValueError if bytes are missing or follow the end.
    """
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
class TrackedExport:
    """Export as its owner sees it."""

    user: str
    id: str
    kind: str
    progress: float = 0.0
    end: tuple[str, str | None] | None = None
    """State and time of the end, once a response has contained them."""
    checked: bool = False
    key: str | None = None
    """Key of the file in S3, until the history deletes it."""


@dataclass
class History:
    """Creates, polls, downloads and compares exports; counts the results in `counts`.

    `violations` returns the counts that must be zero and are not. With `discard`, a file is deleted
    after the comparison, to limit disk usage. Only the thread that runs `work` or `settle` may use
    a history; any thread may read the counts.
    """

    cluster: Cluster
    calm: Mapping[str, ReferenceFile]
    requests: Mapping[str, Mapping[str, Any]]
    seed: int = 1
    discard: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    asked: list[TrackedExport] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._before = {export.id for export in self._recorded()}

    # -- what clients do -----------------------------------------------------------------------

    def work(self, at_once: int, stop: threading.Event) -> None:
        """Keeps up to `at_once` exports running until `stop` is set."""
        while not stop.is_set():
            if len(self.unchecked) < at_once:
                self.post(self._random.choice(sorted(self.requests)))
            self.poll()
            stop.wait(0.3)

    def post(self, kind: str) -> bool:
        """Creates an export; False without a response, when the export may or may not exist."""
        user = self._random.choice(sorted(self.cluster.clients))
        try:
            record = self.cluster.clients[user].create(**self.requests[kind])
        except (ConnectionFailed, ServerFailed):
            self.counts["posts unanswered"] += 1
            return False
        self.asked.append(TrackedExport(user, record.id, kind))
        self.counts["exports"] += 1
        return True

    @property
    def unchecked(self) -> list[TrackedExport]:
        return [one for one in self.asked if not one.checked]

    def poll(self) -> None:
        """Gets the state of each unchecked export, and checks those that have ended."""
        for one in self.unchecked:
            record = self._get(one)
            if record is not None and one.end is not None:
                self._check(one, record)

    def settle(self, patience: float) -> None:
        """Polls until all exports are checked; after `patience` seconds, the others are lost."""
        deadline = time.monotonic() + patience
        self._track_unanswered()
        while self.unchecked and time.monotonic() < deadline:
            self.poll()
            time.sleep(0.3)
        for one in self.unchecked:
            self._record_problem(
                "lost", one, "not terminal, or file not readable, before the timeout"
            )
            one.checked = True

    def _get(self, one: TrackedExport) -> clients.Export | None:
        try:
            record = self.cluster.clients[one.user].get(one.id)
        except (ConnectionFailed, ServerFailed):
            return None
        except ApiError as error:
            self._record_problem("lost", one, str(error))
            one.checked = True
            return None
        if record.progress < one.progress:
            self._record_problem("went back", one, f"from {one.progress} to {record.progress}")
        one.progress = record.progress
        end = (record.state, record.completed_at)
        if one.end is None:
            one.end = end if record.has_ended else None
        elif one.end != end:
            self._record_problem("revived", one, f"it ended as {one.end} and is {end}")
        return record

    def _track_unanswered(self) -> None:
        """Adds accepted exports whose POST got no response; these must end as well."""
        known = self._before | {one.id for one in self.asked}
        for export in self._recorded():
            if export.id not in known:
                self.counts["accepted without response"] += 1
                self.asked.append(TrackedExport(export.user_id, export.id, self._kind(export.spec)))

    # -- whether it was true -------------------------------------------------------------------

    def _check(self, one: TrackedExport, record: clients.Export) -> None:
        result = record.result
        if result is None:
            self._record_problem("failed", one, f"{record.state}: {record.error}")
            one.checked = True
            return
        calm = self.calm[one.kind]
        assert result.download_url is not None
        try:
            got = self._download(result.download_url, _compression(self.requests[one.kind]))
            stored = self.cluster.store.get(one.id)
            assert stored is not None
            assert stored.result is not None
            one.key = stored.result.key
            if self.discard:
                self.cluster.storage.delete([one.key])
                one.key = None
        except (httpx.HTTPError, StorageUnavailable, StoreUnavailable):
            return  # S3 or Redis is unavailable: the next poll tries again
        except (ValueError, zlib.error, zstandard.ZstdError) as error:
            self._record_problem("byte-unequal", one, str(error))
            one.checked = True
            return
        said = (result.record_count, result.file_size)
        beside = (said[0] - calm.rows, got.received - said[1], got.size - calm.size)
        if got.sha256 != calm.sha256:
            self._record_problem("byte-unequal", one, f"{got.size} bytes, {calm.size} when calm")
        if min(beside) < 0:
            self._record_problem("short", one, f"said {said}, got {got}, calm {calm}")
        if max(beside) > 0:
            self._record_problem("doubled", one, f"said {said}, got {got}, calm {calm}")
        one.checked = True
        self.counts["finished"] += 1
        self.counts["rows"] += calm.rows
        self.counts["bytes"] += got.received

    def _download(self, url: str, compression: str) -> _Download:
        digest, size = hashlib.sha256(), 0
        with httpx.stream("GET", url, timeout=30, trust_env=False) as response:
            response.raise_for_status()
            for chunk in decompress(response.iter_raw(), compression):
                digest.update(chunk)
                size += len(chunk)
            return _Download(digest.hexdigest(), size, response.num_bytes_downloaded)

    def audit(self) -> None:
        """Checks after the end that no export changed, and that no data are missing or left over.

        Counts missing files, orphaned objects before and after a cleanup, and remaining entries of
        leases and queues in Redis.
        """
        for one in self.asked:
            self._get(one)
        kept = {one.key for one in self.asked if one.key is not None}
        left = self._bucket()
        for key in sorted(kept - left):
            self.counts["missing"] += 1
            self.problems.append(f"missing: {key}")
        self.counts["orphans before cleaning"] = len(left - kept)
        self.problems += [f"orphan before cleaning: {key}" for key in sorted(left - kept)]
        cleaning.clean(self.cluster.store, self.cluster.storage, SystemClock(), grace=timedelta(0))
        self.counts["orphans after cleaning"] = len(self._bucket() - kept)
        client = self.cluster.store.client
        self.counts["entries left in Redis"] = (
            client.zcard("{exporter}:leases")
            + client.zcard("{exporter}:waiting")
            + client.hlen("{exporter}:running")
            + sum(map(int, cast("list[bytes]", client.hvals("{exporter}:lined"))))
        )

    def violations(self) -> dict[str, int]:
        """Returns the counts that must be zero and are not."""
        return {name: self.counts[name] for name in MUST_BE_ZERO if self.counts[name]}

    def _bucket(self) -> set[str]:
        """Returns the keys of objects and (with prefix `open:`) of open uploads.

        Excludes those of exports that existed before this history.
        """
        storage = self.cluster.storage
        found = {info.key: info.key for info in storage.objects(ROOT)}
        found |= {f"open:{one.key}": one.key for one in storage.unfinished(ROOT)}
        before = tuple(map(prefix, self._before))
        return {name for name, key in found.items() if not key.startswith(before)}

    def _recorded(self) -> list[Export]:
        """Returns every export of the cluster's users from the store."""
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
        """Returns the name of the request that created this export."""
        by_columns = sorted(self.requests.items(), key=lambda one: "columns" not in one[1])
        for name, request in by_columns:
            if (
                (spec.format, spec.limit) == (request["format"], request["limit"])
                and bool(spec.query) == bool(request["query"])
                and tuple(request.get("columns", spec.columns)) == spec.columns
                and _compression(request) == spec.compression
            ):
                return name
        raise AssertionError(f"no request matches the export's {spec}")

    def _record_problem(self, what: str, one: TrackedExport, why: str) -> None:
        self.counts[what] += 1
        self.problems.append(f"{what}: {one.id} ({one.kind}): {why}")
