"""Any S3 that knows Signature Version 4, through boto3."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import os
import random
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import boto3
from botocore import exceptions as boto
from botocore.config import Config
from botocore.parsers import ResponseParserError
from botocore.response import StreamingBody

from exporter.clock import Clock
from exporter.core.checkpoints import Part
from exporter.errors import ConfigurationError, ObjectExists, StorageError, UploadGone
from exporter.storage import presigning, s3_body, s3_failures
from exporter.storage.base import (
    LINK_SECONDS_MAX,
    FileHeaders,
    ObjectInfo,
    OpenUpload,
    check_guard,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import (
        ListMultipartUploadsOutputTypeDef,
        ListObjectsV2OutputTypeDef,
    )

T = TypeVar("T")

COPY_PIECE = 64 * 1024**2
"""Bytes that one request copies inside the store. S3 allows 5 GiB, but answers only when all is
copied, and a busy SeaweedFS was seen to copy 24 MB/s: within the read timeout there is room for
this and for a store six times slower."""
COPY_PIECES_MAX = 2000
"""Pieces of one copied object; of the 10,000 parts of an upload most stay free for new data."""

CONNECT_TIMEOUT = 3.0
READ_TIMEOUT = 20.0
"""Seconds without a byte of an answer, after which a try counts as failed."""
CHECK_PATIENCE = 5.0
"""Seconds that `check` takes for an answer, so that nobody stares at a silent start."""
FIRST_WAIT = 0.2
LONGEST_WAIT = 5.0


class S3Storage:
    """Keeps files in one bucket; safe to use from many threads and after a fork.

    All waiting is done here, on the injected clock: boto3 tries once, and what may pass is tried
    again for about a minute. Every try first asks the guard of `storage.base.guarded`,
    whose error comes out unchanged. A guard binds the thread and context that set it: work
    handed to another thread takes it along with `contextvars.copy_context().run`.

    `endpoint_url` is None for AWS itself. `public_endpoint_url` is where downloaders reach the
    store, if that differs. Keys come from the usual AWS_* variables, profile or role.
    """

    def __init__(
        self,
        bucket: str,
        *,
        endpoint_url: str | None,
        public_endpoint_url: str | None,
        region: str,
        clock: Clock,
    ) -> None:
        self._bucket = bucket
        self._endpoint_url = endpoint_url
        self._public_endpoint_url = public_endpoint_url or endpoint_url
        self._region = region
        self._clock = clock
        # A forked child must not speak on its parent's sockets, nor close them by forgetting
        # them: it makes clients of its own and leaves the inherited ones where they are.
        self._clients: dict[tuple[int, str | None], S3Client] = {}

    def check(self) -> None:
        """Returns when the bucket can be listed and written with these keys.

        Raises ConfigurationError, saying what to mend, when the store refuses; StorageUnavailable
        when it does not answer within about 5 s. Leaves nothing in the bucket.
        """
        key = "exporter-check"
        try:
            self._call(
                "ListObjectsV2",
                key,
                lambda s3: s3.list_objects_v2(Bucket=self._bucket, Prefix=key, MaxKeys=1),
                CHECK_PATIENCE,
            )
            upload_id = self._call(
                "CreateMultipartUpload",
                key,
                lambda s3: s3.create_multipart_upload(Bucket=self._bucket, Key=key),
                CHECK_PATIENCE,
            )["UploadId"]
            self.abort(key, upload_id)
        except s3_failures.Refused as error:
            raise ConfigurationError(str(error)) from error
        except ValueError as error:
            raise ConfigurationError(
                f"EXPORTER_S3_ENDPOINT_URL is {self._endpoint_url!r}, which is no URL of a server: "
                f"write it like http://127.0.0.1:9000, or leave it out for AWS ({error})."
            ) from error

    def begin(self, key: str, headers: FileHeaders) -> str:
        """Open a multipart upload; returns its id. A bare GET will answer with these headers."""
        return self._call(
            "CreateMultipartUpload",
            key,
            lambda s3: s3.create_multipart_upload(
                Bucket=self._bucket,
                Key=key,
                ContentType=headers.content_type,
                ContentDisposition=headers.disposition,
            ),
        )["UploadId"]

    def put_part(self, key: str, upload_id: str, number: int, data: bytes | bytearray) -> Part:
        """Store one part, numbered from 1 to 10,000. Raises UploadGone if the upload id is dead.

        Every part but the last must have 5 MiB; S3 finds out only at `complete`.
        """
        # Three quarters of the time of an upload (18 of 24 ms for 8 MiB), in the part's own thread.
        # A CRC32 would take 1 ms, but AWS refuses one that was not announced when the upload began,
        # wants all of them again when it ends, and not every store does so.
        digest = base64.b64encode(_md5(data)).decode()
        answer = self._call(
            "UploadPart",
            key,
            lambda s3: s3.upload_part(
                Bucket=self._bucket,
                Key=key,
                UploadId=upload_id,
                PartNumber=number,
                Body=data,  # type: ignore[arg-type]  # the stubs do not know bytearray
                ContentMD5=digest,
            ),
        )
        return Part(_bare(answer["ETag"]), len(data))

    def copy_parts(
        self,
        source: ObjectInfo,
        key: str,
        upload_id: str,
        first: int,
        span: range | None = None,
    ) -> tuple[Part, ...]:
        """Copy an object inside the store into an open upload, as parts from `first` on; or that
        span of it, as the part `first`.

        None of them is smaller than 5 MiB, unless the object is; an empty object yields none.
        Raises UploadGone if the upload id is dead.
        """
        pieces = copy_ranges(source.size) if span is None else [span]
        return tuple(
            self._copy(source, piece, key, upload_id, number)
            for number, piece in enumerate(pieces, first)
        )

    def _copy(
        self, source: ObjectInfo, piece: range, key: str, upload_id: str, number: int
    ) -> Part:
        only: dict[str, Any] = {}
        # A range is allowed only of objects above 5 MiB: a whole object goes without.
        if len(piece) < source.size:
            only["CopySourceRange"] = f"bytes={piece[0]}-{piece[-1]}"
        answer = self._call(
            "UploadPartCopy",
            key,
            lambda s3: s3.upload_part_copy(
                Bucket=self._bucket,
                Key=key,
                UploadId=upload_id,
                PartNumber=number,
                CopySource={"Bucket": self._bucket, "Key": source.key},
                **only,
            ),
        )
        return Part(_bare(answer["CopyPartResult"]["ETag"]), len(piece))

    def complete(self, key: str, upload_id: str, parts: Sequence[Part]) -> None:
        """Make the parts one object, if no object has that key yet.

        Raises UploadGone if the upload id is dead, ObjectExists if the key is taken. Either may
        also come after our own success whose answer was lost: `head` tells. StorageError, with
        the store's code, if a part is missing, replaced or too small.
        """
        self._call(
            "CompleteMultipartUpload",
            key,
            lambda s3: s3.complete_multipart_upload(
                Bucket=self._bucket,
                Key=key,
                UploadId=upload_id,
                MultipartUpload={
                    "Parts": [
                        {"ETag": f'"{part.etag}"', "PartNumber": number}
                        for number, part in enumerate(parts, 1)
                    ]
                },
                IfNoneMatch="*",
            ),
        )

    def put_small(self, key: str, data: bytes | bytearray, headers: FileHeaders) -> None:
        """Store a whole object at once. Raises ObjectExists if the key is taken by other bytes."""
        digest = _md5(data)
        try:
            self._call(
                "PutObject",
                key,
                lambda s3: s3.put_object(
                    Bucket=self._bucket,
                    Key=key,
                    Body=data,  # type: ignore[arg-type]  # the stubs do not know bytearray
                    ContentMD5=base64.b64encode(digest).decode(),
                    ContentType=headers.content_type,
                    ContentDisposition=headers.disposition,
                    IfNoneMatch="*",
                ),
            )
        except ObjectExists:
            # A try of ours whose answer was lost looks like somebody else's object.
            found = self.head(key)
            if found is None or (found.size, found.etag) != (len(data), digest.hex()):
                raise

    def read(self, key: str) -> bytes:
        """The whole object, read again when its body breaks off. StorageError if there is none."""
        return self._call(
            "GetObject",
            key,
            # Inside the retried call: boto3 itself never repeats the reading of a body.
            lambda s3: s3.get_object(Bucket=self._bucket, Key=key)["Body"].read(),
        )

    def stream(self, key: str, start: int, end: int) -> Iterator[bytes]:
        """Bytes `start` to `end` (exclusive) of an object; see `s3_body.stretch`."""

        def ask(place: int) -> StreamingBody:
            wanted = f"bytes={place}-{end - 1}"
            return self._call(
                "GetObject",
                key,
                lambda s3: s3.get_object(Bucket=self._bucket, Key=key, Range=wanted),
            )["Body"]

        return s3_body.stretch(ask, start, end) if start < end else iter(())

    def abort(self, key: str, upload_id: str) -> None:
        """Drop an open upload and its parts; fine if it is gone already."""
        with contextlib.suppress(UploadGone):
            self._call(
                "AbortMultipartUpload",
                key,
                lambda s3: s3.abort_multipart_upload(
                    Bucket=self._bucket, Key=key, UploadId=upload_id
                ),
            )

    def head(self, key: str) -> ObjectInfo | None:
        """The object's size and etag, or None."""
        try:
            answer = self._call(
                "HeadObject", key, lambda s3: s3.head_object(Bucket=self._bucket, Key=key)
            )
        except s3_failures.Missing:
            return None
        return ObjectInfo(key, answer["ContentLength"], _bare(answer["ETag"]))

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; fine if they are gone already."""
        # One by one: stores disagree about the checksum that a bulk delete must carry.
        for key in keys:
            self._delete(key)

    def _delete(self, key: str) -> None:
        with contextlib.suppress(s3_failures.Missing):
            self._call(
                "DeleteObject", key, lambda s3: s3.delete_object(Bucket=self._bucket, Key=key)
            )

    def objects(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every object under a prefix, in the order of keys; asks for 1,000 at a time."""
        token: dict[str, Any] = {}
        while True:
            page = self._list_objects(prefix, token)
            for entry in page.get("Contents", ()):
                yield ObjectInfo(entry["Key"], entry["Size"], _bare(entry["ETag"]))
            if not page["IsTruncated"]:
                return
            token = _moved(token, {"ContinuationToken": page["NextContinuationToken"]})

    def _list_objects(self, prefix: str, token: dict[str, Any]) -> ListObjectsV2OutputTypeDef:
        return self._call(
            "ListObjectsV2",
            prefix,
            lambda s3: s3.list_objects_v2(Bucket=self._bucket, Prefix=prefix, **token),
        )

    def open_uploads(self, prefix: str) -> Iterator[OpenUpload]:
        """Every open upload under a prefix; asks for 1,000 at a time."""
        marker: dict[str, Any] = {}
        while True:
            page = self._list_uploads(prefix, marker)
            for entry in page.get("Uploads", ()):
                yield OpenUpload(entry["Key"], entry["UploadId"], entry["Initiated"])
            if not page["IsTruncated"]:
                return
            marker = _moved(
                marker,
                {
                    "KeyMarker": page["NextKeyMarker"],
                    "UploadIdMarker": page["NextUploadIdMarker"],
                },
            )

    def _list_uploads(
        self, prefix: str, marker: dict[str, Any]
    ) -> ListMultipartUploadsOutputTypeDef:
        return self._call(
            "ListMultipartUploads",
            prefix,
            lambda s3: s3.list_multipart_uploads(Bucket=self._bucket, Prefix=prefix, **marker),
        )

    def presign(self, key: str, seconds: int) -> str:
        """A URL that works with a bare GET for that many seconds; made without a request.

        At most 7 days, S3's own bound: more is cut to that. Temporary keys (a role's) end the
        URL when they expire themselves, which may be sooner.
        """
        try:
            return presigning.url(
                self._client(self._public_endpoint_url),
                self._bucket,
                key,
                min(seconds, LINK_SECONDS_MAX),
            )
        except boto.BotoCoreError as error:
            reaction, cause = s3_failures.classify(error)
            raise reaction.raises(self._text("Signing", key, cause, reaction)) from error

    def _call(
        self,
        operation: str,
        key: str,
        request: Callable[[S3Client], T],
        patience: float = s3_failures.PATIENCE,
    ) -> T:
        """The answer, after as many tries as the failure's kind is worth, within `patience`."""
        began = self._clock.monotonic()
        ceiling = FIRST_WAIT
        while True:
            try:
                return request(self._client(self._endpoint_url))
            except (boto.ClientError, boto.BotoCoreError, ResponseParserError) as error:
                reaction, cause = s3_failures.classify(error)
                # Full jitter: workers that were turned away together must not return together.
                pause = random.uniform(0, ceiling)  # noqa: S311 - not a secret
                spent = self._clock.monotonic() - began
                if spent + pause >= min(reaction.patience, patience):
                    raise reaction.raises(self._text(operation, key, cause, reaction)) from error
            self._clock.sleep(pause)
            ceiling = min(ceiling * 2, LONGEST_WAIT)

    def _text(self, operation: str, key: str, cause: str, reaction: s3_failures.Reaction) -> str:
        return (
            f"{operation} of {key!r} in bucket {self._bucket!r} failed: {cause}. {reaction.advice}"
        ).rstrip()

    def _client(self, endpoint_url: str | None) -> S3Client:
        place = os.getpid(), endpoint_url
        if place not in self._clients:
            self._clients.setdefault(place, _connect(endpoint_url, self._region))
        return self._clients[place]


def _connect(endpoint_url: str | None, region: str) -> S3Client:
    # The default session is not safe to share between threads that make clients.
    client = boto3.session.Session().client(
        "s3",
        endpoint_url=endpoint_url,
        region_name=region,
        config=Config(
            # One try: its own waits would be deaf to our clock and add to our patience.
            retries={"mode": "standard", "total_max_attempts": 1},
            connect_timeout=CONNECT_TIMEOUT,
            read_timeout=READ_TIMEOUT,
            max_pool_connections=32,
            tcp_keepalive=True,
            # Stores other than AWS refuse or ignore the checksums that boto3 adds by itself.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            signature_version="s3v4",
            s3={
                "addressing_style": "path" if endpoint_url else "virtual",
                # Content-MD5 is signed and covers the body; a SHA-256 on top costs as much
                # again as all the rest of an upload.
                "payload_signing_enabled": False,
            },
        ),
    )
    client.meta.events.register("before-send.s3", _ask_guard)
    return client


def _ask_guard(**_: Any) -> None:
    check_guard()


def copy_ranges(size: int) -> list[range]:
    """Consecutive ranges of nearly equal length that cover so many bytes, at most 2,000.

    Each is between 5 MiB and 5 GiB, S3's bounds of a part, if the whole is between 5 MiB and S3's
    largest object of 5 TiB.
    """
    count = -(-size // max(COPY_PIECE, -(-size // COPY_PIECES_MAX)))
    cuts = [size * n // count for n in range(count + 1)] if count else []
    return [range(*cut) for cut in itertools.pairwise(cuts)]


def _moved(marker: dict[str, Any], following: dict[str, Any]) -> dict[str, Any]:
    if following == marker:
        raise StorageError(
            f"The store gave the same place in a list twice ({marker}), so it would never end."
        )
    return following


def _md5(data: bytes | bytearray) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()


def _bare(etag: str) -> str:
    return etag.strip('"')
