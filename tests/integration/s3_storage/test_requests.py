"""Requests: what S3Storage asks of S3, over which connections, and for which host."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
import msgspec
import pytest

from exporter.clock import FakeClock
from exporter.core.checkpoints import FileState
from exporter.errors import StorageError
from exporter.storage.base import ObjectInfo, ObjectRange
from exporter.storage.keys import prefix
from exporter.storage.s3.storage import S3Storage
from tests.integration import faulty_s3
from tests.integration.faulty_s3 import FaultyS3
from tests.integration.s3_storage.conftest import CSV

if TYPE_CHECKING:
    from tests.conftest import S3

MIB = 1024**2


def test_every_body_carries_its_md5(storage: S3Storage, proxy: FaultyS3, key: str) -> None:
    # Given, When
    storage.put_small(key, b"small", CSV)
    storage.put_part(key, storage.begin(key, CSV), 1, b"part")

    # Then
    sent = [request.headers.get("content-md5") for request in proxy.requests]
    small, part = (
        base64.b64encode(hashlib.md5(data).digest()).decode() for data in (b"small", b"part")
    )
    assert sent == [small, None, part]


def test_writes_that_publish_ask_the_store_not_to_replace(
    storage: S3Storage, proxy: FaultyS3, key: str
) -> None:
    # Given
    upload_id = storage.begin(key, CSV)
    part = storage.put_part(key, upload_id, 1, b"a")

    # When
    storage.complete(key, upload_id, [part])
    storage.put_small(f"{key}.tail", b"a", CSV)

    # Then
    asked = [request.headers.get("if-none-match") for request in proxy.requests]
    assert asked == [None, None, "*", "*"]


def test_a_range_of_an_object_is_asked_for_and_a_whole_object_without_a_range(
    storage: S3Storage, proxy: FaultyS3, key: str
) -> None:
    # Given
    proxy.otherwise = faulty_s3.text(200, '<CopyPartResult><ETag>"e"</ETag></CopyPartResult>')
    old = ObjectInfo("old", 12 * MIB, "e")

    # When
    parts = [
        storage.copy_part(ObjectRange(old, span), key, "upload", number)
        for number, span in enumerate([range(6 * MIB), range(6 * MIB, 12 * MIB), range(12 * MIB)])
    ]

    # Then: S3 refuses ranges of small objects
    asked = [request.headers.get("x-amz-copy-source-range") for request in proxy.requests]
    assert asked == ["bytes=0-6291455", "bytes=6291456-12582911", None]
    assert [part.size for part in parts] == [6 * MIB, 6 * MIB, 12 * MIB]


def test_parts_of_several_sizes_of_an_older_version_become_equal_at_a_takeover(
    storage: S3Storage, key: str
) -> None:
    # Given: parts that end where pages end, and a tail
    open_file = partial(storage.open_file, prefix(key), headers=CSV, piece_bytes=5 * MIB)
    old = open_file(fence="1-a", state=FileState())
    pieces = [b"a" * (5 * MIB + 1), b"b" * (6 * MIB)]
    for piece in pieces:
        old.append(bytearray(piece))()
    at = old.pause(sum(map(len, pieces)), bytearray(b"tail"))
    new = open_file(fence="2-b", state=msgspec.structs.replace(at, part_size=0))

    # When
    taken = new.resume(clean=False)

    # Then
    assert [part.size for part in taken.parts] == [5 * MIB, 5 * MIB]
    assert taken.part_size == 5 * MIB
    assert new.read_rest() == b"b" * (MIB + 1) + b"tail"
    new.publish()
    assert storage.read(new.key) == (pieces[0] + pieces[1])[: 10 * MIB]
    storage.delete_all(prefix(key))


def test_a_list_that_gives_the_same_place_twice_ends_with_an_error(
    storage: S3Storage, proxy: FaultyS3
) -> None:
    # Given
    proxy.otherwise = faulty_s3.text(
        200,
        "<ListBucketResult><IsTruncated>true</IsTruncated>"
        "<NextContinuationToken>again</NextContinuationToken></ListBucketResult>",
    )

    # When
    with pytest.raises(StorageError, match="again"):
        list(storage.objects("any/"))

    # Then
    assert len(proxy.requests) == 2


def test_a_link_is_made_without_a_request_for_the_host_that_downloaders_reach(
    s3_server: S3, proxy: FaultyS3, clock: FakeClock, key: str
) -> None:
    # Given a store whose own name is of no use outside
    inside = S3Storage(
        s3_server.bucket,
        endpoint_url=s3_server.endpoint_url,
        public_endpoint_url=proxy.url,
        region="us-east-1",
        clock=clock,
    )
    inside.put_small(key, b"a", CSV)

    # When
    link = inside.presign(key, 60)

    # Then
    assert proxy.requests == []
    assert urlsplit(link).netloc == urlsplit(proxy.url).netloc
    assert httpx.get(link).content == b"a"


def test_a_link_to_aws_names_the_bucket_and_its_region(
    s3_server: S3, clock: FakeClock, key: str
) -> None:
    # Given
    aws = S3Storage(
        "some-bucket",
        endpoint_url=None,
        public_endpoint_url=None,
        region="eu-central-1",
        clock=clock,
    )

    # When
    link = urlsplit(aws.presign(key, 60))

    # Then a redirect to the region, which would break the signature, is not needed
    assert (link.scheme, link.netloc) == ("https", "some-bucket.s3.eu-central-1.amazonaws.com")
    assert s3_server.secret_key not in link.query


FORKS = """
import os, sys
from exporter.clock import SystemClock
from exporter.storage.base import FileHeaders
from exporter.storage.s3.storage import S3Storage

bucket, url, prefix = sys.argv[1:]
storage = S3Storage(
    bucket, endpoint_url=url, public_endpoint_url=None, region="us-east-1", clock=SystemClock()
)
headers = FileHeaders("text/csv", "a.csv")
storage.put_small(prefix + "before", b"before", headers)
child = os.fork()
name = "parent" if child else "child"
for n in range(10):
    storage.put_small(f"{prefix}{name}{n}", name.encode(), headers)
    assert storage.read(f"{prefix}{name}{n}") == name.encode()
if child:
    sys.exit(os.waitpid(child, 0)[1])
"""


def test_a_forked_child_shares_no_connection_with_its_parent(
    storage: S3Storage, proxy: FaultyS3, s3_server: S3, key: str
) -> None:
    # Given a process that used the store, then forks
    # When both go on at the same time
    subprocess.run(
        [sys.executable, "-c", FORKS, s3_server.bucket, proxy.url, key], check=True, timeout=60
    )

    # Then
    def connections(name: str) -> set[int]:
        return {request.peer for request in proxy.requests if f"{key}{name}" in request.path}

    assert connections("parent") & connections("before")
    assert not connections("child") & connections("parent")
    assert len(list(storage.objects(key))) == 21
