"""Storage in any S3 that supports Signature Version 4, through boto3."""

from __future__ import annotations

import base64
import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypedDict
from urllib.parse import urlsplit

from botocore import exceptions as boto
from botocore.response import StreamingBody

from exporter.clock import Clock
from exporter.core.checkpoints import Part
from exporter.errors import ObjectExists, StorageError, StorageUnavailable, UploadGone
from exporter.storage.base import FileHeaders, ObjectInfo, ObjectRange, UnfinishedFile
from exporter.storage.s3 import body, check, checksums, failures, presigning
from exporter.storage.s3.encryption import Encryption
from exporter.storage.s3.limits import MAX_LINK_SECONDS, Addressing
from exporter.storage.s3.multipart import MultipartStorage
from exporter.storage.s3.requests import Requests, given, unquoted

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MAX_SEAL_TRIES = 5
"""Completions of an upload to which a worker that lost its lease may still add parts."""


class _Condition(TypedDict, total=False):
    """Argument of a request that must not replace an object."""

    IfNoneMatch: str


class S3Storage(MultipartStorage):
    """Stores files in one bucket; safe to use from many threads and after a fork.

    Temporary failures are retried, see `Requests`. A guard applies to the thread and context that
    set it; work for another thread takes the guard along with `contextvars.copy_context().run`.

    `public_endpoint_url` is the address of the store for downloads, if it differs from that for
    requests. What is None, and `addressing` with the value `auto`, comes from the AWS configuration
    of the process (AWS_* variables and profile), as the credentials do. `encryption` is asked for
    in each request that begins an object; parts and copied parts follow their upload.
    """

    def __init__(
        self,
        bucket: str,
        *,
        endpoint_url: str | None,
        public_endpoint_url: str | None,
        region: str | None,
        clock: Clock,
        addressing: Addressing = "auto",
        encryption: Encryption | None = None,
    ) -> None:
        self._bucket = bucket
        self._encrypted: dict[str, Any] = dict(encryption.arguments) if encryption else {}
        self._requests = Requests(
            bucket,
            endpoint_url=endpoint_url,
            public_endpoint_url=public_endpoint_url,
            region=region,
            clock=clock,
            addressing=addressing,
            encryption=encryption,
        )
        self._call = self._requests.call
        self.takes_conditions = True
        """False after the store refused `If-None-Match`, see `_write_new`."""
        self._takes_checksums = True

    def check(self) -> None:
        check.check(self._requests)

    def open(self) -> None:
        self._requests.open()

    def begin(self, key: str, headers: FileHeaders) -> str:
        upload_id: str = given(self._begin(key, headers), "CreateMultipartUpload", "UploadId")
        return upload_id

    def begin_checked(self, key: str, headers: FileHeaders) -> tuple[str, bool]:
        """Opens an upload that announces checksums; it has them if the answer repeats both values.

        A store that refuses the announcement, or does not repeat it, is asked without it, and from
        then on only so. A store that is silent may want the checksums all the same: older
        releases of SeaweedFS then refuse the completion.
        """
        if not self._takes_checksums or not checksums.is_available():
            return self.begin(key, headers), False
        announced = {"ChecksumAlgorithm": checksums.ALGORITHM, "ChecksumType": checksums.TYPE}
        try:
            answer = self._begin(key, headers, **announced)
        except StorageError as error:
            if isinstance(error, StorageUnavailable):
                raise
        else:
            announced_id = given(answer, "CreateMultipartUpload", "UploadId")
            if all(answer.get(name) == value for name, value in announced.items()):
                return announced_id, True
            self.abort(key, announced_id)
        upload_id = self.begin(key, headers)
        self._takes_checksums = False
        return upload_id, False

    def _begin(self, key: str, headers: FileHeaders, **announced: Any) -> Mapping[str, Any]:
        return self._call(
            "CreateMultipartUpload",
            key,
            lambda s3: s3.create_multipart_upload(
                Bucket=self._bucket,
                Key=key,
                ContentType=headers.content_type,
                ContentDisposition=headers.disposition,
                **announced,
                **self._encrypted,
            ),
        )

    def put_part(
        self, key: str, upload_id: str, number: int, data: bytes | bytearray, checksum: str = ""
    ) -> Part:
        # For 8 MiB, the MD5 takes 18 ms and all else 4 ms.
        check: dict[str, Any] = {"ChecksumCRC64NVME": checksum}
        if not checksum:
            check = {"ContentMD5": base64.b64encode(_md5(data)).decode()}
        answer = self._call(
            "UploadPart",
            key,
            lambda s3: s3.upload_part(
                Bucket=self._bucket,
                Key=key,
                UploadId=upload_id,
                PartNumber=number,
                Body=data,  # type: ignore[arg-type]  # the stubs do not know bytearray
                **check,
            ),
        )
        return Part(unquoted(given(answer, "UploadPart", "ETag")), len(data))

    def copy_part(self, source: ObjectRange, key: str, upload_id: str, number: int) -> Part:
        only: dict[str, Any] = {}
        # S3 allows a range only for objects above 5 MiB; a whole object is copied without one.
        if len(source.span) < source.source.size:
            only["CopySourceRange"] = f"bytes={source.span[0]}-{source.span[-1]}"
        answer = self._call(
            "UploadPartCopy",
            key,
            lambda s3: s3.upload_part_copy(
                Bucket=self._bucket,
                Key=key,
                UploadId=upload_id,
                PartNumber=number,
                CopySource={"Bucket": self._bucket, "Key": source.source.key},
                **only,
            ),
        )
        result = given(answer, "UploadPartCopy", "CopyPartResult")
        return Part(unquoted(given(result, "UploadPartCopy", "ETag")), len(source.span))

    def complete(
        self, key: str, upload_id: str, parts: Sequence[Part], checks: Sequence[str] = ()
    ) -> None:
        self._complete(key, upload_id, dict(enumerate(parts, 1)), checks)

    def seal(
        self, key: str, upload_id: str, parts: Sequence[Part], checks: Sequence[str] = ()
    ) -> None:
        """Ends an upload like `complete`, so that nothing can be added to it.

        Ceph refuses a completion that leaves out a part, such as the one that a dead worker sent
        and did not commit. Then the object has such parts as well, after those that are given.
        """
        known = dict(enumerate(parts, 1))
        for tries_left in reversed(range(MAX_SEAL_TRIES)):
            try:
                self._complete(key, upload_id, known, checks)
            except failures.WrongParts:
                listed = self._parts(key, upload_id)
                given = [listed.get(number) for number in range(1, len(parts) + 1)]
                if not tries_left or given != list(parts) or listed == known:
                    raise
                known = listed
            else:
                return

    def _complete(
        self, key: str, upload_id: str, parts: Mapping[int, Part], checks: Sequence[str]
    ) -> None:
        named: list[Any] = [
            {"ETag": f'"{part.etag}"', "PartNumber": number} for number, part in parts.items()
        ]
        whole: dict[str, Any] = {}
        for part, checksum in zip(named, checks, strict=False):
            part["ChecksumCRC64NVME"] = checksum
        if checks and len(checks) == len(named) and checksums.is_available():
            sizes = (part.size for part in parts.values())
            whole["ChecksumCRC64NVME"] = checksums.of_whole(zip(sizes, checks, strict=True))
            whole["ChecksumType"] = checksums.TYPE
        try:
            self._write_new(
                "CompleteMultipartUpload",
                key,
                lambda s3, condition: s3.complete_multipart_upload(
                    Bucket=self._bucket,
                    Key=key,
                    UploadId=upload_id,
                    MultipartUpload={"Parts": named},
                    **whole,
                    **condition,
                ),
            )
        except failures.OtherBytes:
            # Perhaps the store sums wrongly: the next upload is checked by its parts only.
            self._takes_checksums = False
            raise
        except failures.Completing as error:
            if all(found.upload_id != upload_id for found in self.open_uploads(key)):
                raise UploadGone(str(error)) from error
            raise
        if not self.takes_conditions:
            found = self.head(key)
            if found is None or found.size != sum(part.size for part in parts.values()):
                raise ObjectExists(f"{key!r} in bucket {self._bucket!r} was completed before")

    def _parts(self, key: str, upload_id: str) -> dict[int, Part]:
        """Returns the parts of an upload by number, in order."""
        found = self._requests.entries(
            "ListParts",
            key,
            lambda marker, s3: s3.list_parts(
                Bucket=self._bucket, Key=key, UploadId=upload_id, **marker
            ),
            field="Parts",
            markers={"PartNumberMarker": "NextPartNumberMarker"},
        )
        return {one["PartNumber"]: Part(unquoted(one["ETag"]), one["Size"]) for one in found}

    def put_small(self, key: str, data: bytes | bytearray, headers: FileHeaders) -> None:
        digest = _md5(data)
        try:
            self._write_new(
                "PutObject",
                key,
                lambda s3, condition: s3.put_object(
                    Bucket=self._bucket,
                    Key=key,
                    Body=data,  # type: ignore[arg-type]  # the stubs do not know bytearray
                    ContentMD5=base64.b64encode(digest).decode(),
                    ContentType=headers.content_type,
                    ContentDisposition=headers.disposition,
                    **self._encrypted,
                    **condition,
                ),
            )
        except ObjectExists:
            # The object may come from an earlier try whose answer was lost.
            found = self.head(key)
            if found is None or found.size != len(data):
                raise
            # The etag is no MD5 if the store encrypts objects with keys of a KMS.
            if found.etag != digest.hex() and _md5(self.read(key)) != digest:
                raise

    def read(self, key: str) -> bytes:
        """Returns the whole object; if the download breaks off, the object is read again.

        Raises StorageError if the object does not exist.
        """
        return self._call(
            "GetObject",
            key,
            # The body is read inside the retried call, because boto3 never retries this step.
            lambda s3: s3.get_object(Bucket=self._bucket, Key=key)["Body"].read(),
        )

    def stream(self, key: str, start: int, end: int) -> Iterator[bytes]:
        """Yields bytes `start` to `end` (exclusive) of an object; see `body.stream_range`."""

        def open_body(position: int) -> StreamingBody:
            byte_range = f"bytes={position}-{end - 1}"
            return self._call(
                "GetObject",
                key,
                lambda s3: s3.get_object(Bucket=self._bucket, Key=key, Range=byte_range),
            )["Body"]

        return body.stream_range(open_body, start, end) if start < end else iter(())

    def abort(self, key: str, upload_id: str) -> None:
        with contextlib.suppress(UploadGone):
            self._call(
                "AbortMultipartUpload",
                key,
                lambda s3: s3.abort_multipart_upload(
                    Bucket=self._bucket, Key=key, UploadId=upload_id
                ),
            )

    def head(self, key: str) -> ObjectInfo | None:
        try:
            answer = self._call(
                "HeadObject", key, lambda s3: s3.head_object(Bucket=self._bucket, Key=key)
            )
        except failures.Missing:
            return None
        return ObjectInfo(key, answer["ContentLength"], unquoted(answer["ETag"]))

    def delete(self, keys: Sequence[str]) -> None:
        # No bulk delete: stores require different checksums for one.
        for key in keys:
            self._delete(key)

    def _delete(self, key: str) -> None:
        with contextlib.suppress(failures.Missing):
            self._call(
                "DeleteObject", key, lambda s3: s3.delete_object(Bucket=self._bucket, Key=key)
            )

    def objects(self, prefix: str) -> Iterator[ObjectInfo]:
        for entry in self._requests.entries(
            "ListObjectsV2",
            prefix,
            lambda marker, s3: s3.list_objects_v2(Bucket=self._bucket, Prefix=prefix, **marker),
            field="Contents",
            markers={"ContinuationToken": "NextContinuationToken"},
        ):
            yield ObjectInfo(entry["Key"], entry["Size"], unquoted(entry["ETag"]))

    def open_uploads(self, prefix: str) -> Iterator[UnfinishedFile]:
        for entry in self._requests.entries(
            "ListMultipartUploads",
            prefix,
            lambda marker, s3: s3.list_multipart_uploads(
                Bucket=self._bucket, Prefix=prefix, **marker
            ),
            field="Uploads",
            markers={"KeyMarker": "NextKeyMarker", "UploadIdMarker": "NextUploadIdMarker"},
        ):
            yield UnfinishedFile(entry["Key"], entry["UploadId"], entry["Initiated"])

    def presign(self, key: str, seconds: int) -> str:
        """Returns a URL that a plain GET can read for that many seconds; makes no request.

        The lifetime is shortened to 7 days, the limit of S3. With temporary credentials, such as
        those of a role, the URL expires no later than the credentials.
        """
        try:
            return presigning.url(
                self._requests.public_client, self._bucket, key, min(seconds, MAX_LINK_SECONDS)
            )
        except boto.BotoCoreError as error:
            reaction, cause = failures.classify(error)
            text = self._requests.error_text("Signing", key, cause, reaction)
            raise reaction.raises(text) from error

    def _write_new(
        self, operation: str, key: str, request: Callable[[S3Client, _Condition], object]
    ) -> None:
        """Sends a write that must not replace an object; `request` sends the condition.

        Raises ObjectExists if the key is taken. A store that does not know `If-None-Match`
        (Backblaze B2 answers 501) is asked by a HEAD before the write instead. This is remembered
        after the first write that succeeded so. Another write may come between the HEAD and the
        write; nothing is lost or doubled by it, because:

        - A key contains the fence of one worker, or the id of an export that is not recorded yet
          (`storage.keys`). So all writes of a key come from one worker: tries of the same write.
          Only the preview of an export may be written by two; it is a copy that is never continued.
        - A PutObject that is tried again writes the same bytes again.
        - A multipart upload can be completed once. If its worker was suspended between the HEAD and
          the completion, its successor has meanwhile sealed that upload, see `MultipartFile`. To
          the late completion the store answers NoSuchUpload, or again 200 (SeaweedFS, AWS) without
          any effect; therefore `complete` compares the size afterwards.
        - The successor writes keys with its own fence, and its checkpoint names only those and the
          sealed object. A late PutObject of the suspended worker makes an object that no checkpoint
          names, as it would with `If-None-Match`; cleaning deletes that object.

        The header is a second line of defense, and the way by which a repeated write whose answer
        was lost is recognized; the HEAD recognizes it as well.
        """
        if self.takes_conditions:
            try:
                self._call(operation, key, lambda s3: request(s3, {"IfNoneMatch": "*"}))
            except failures.Unsupported:
                pass
            else:
                return
        if self.head(key) is not None:
            raise ObjectExists(
                f"{operation} of {key!r} in bucket {self._bucket!r}: the key is taken"
            )
        self._call(operation, key, lambda s3: request(s3, {}))
        self.takes_conditions = False


class S3Settings(Protocol):
    """The settings of an S3, with the names of `exporter.settings.Settings`."""

    s3_endpoint_url: str | None
    s3_public_endpoint_url: str | None
    s3_region: str | None
    s3_addressing: Addressing
    s3_sse: Encryption | None


def connect(url: str, settings: S3Settings, clock: Clock) -> S3Storage:
    """Returns the storage in the bucket of a URL `s3://BUCKET`, without a request."""
    return S3Storage(
        urlsplit(url).netloc,
        endpoint_url=settings.s3_endpoint_url,
        public_endpoint_url=settings.s3_public_endpoint_url,
        region=settings.s3_region,
        addressing=settings.s3_addressing,
        encryption=settings.s3_sse,
        clock=clock,
    )


def _md5(data: bytes | bytearray) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()
