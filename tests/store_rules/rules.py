"""The rules of stores other than AWS, each with the place where it is documented or reported.

**Cloudflare R2** (`r2`). All parts of an upload but the last have one length and the last is not
longer, checked when the upload is completed: developers.cloudflare.com/r2/objects/multipart-objects
and cloudflare-docs pull 9549, apache/opendal 2904, apache/iceberg-rust 1406. Copied parts count
with the length of their range (johnspurlock's notes on R2: "includes copy-range parts"). Parts but
the last have 5 MiB or more, as everywhere. `x-amz-server-side-encryption` is not implemented, and
the regions are `auto` and its alias `us-east-1` (developers.cloudflare.com/r2/api/s3/api).
Not enforced here, because nothing depends on it: the etag of a part is not its MD5 (s3cmd 1273).

**Backblaze B2** (`b2`). 501 NotImplemented to If-None-Match and If-Match of a write:
obsidian-s3-sync-and-backup 78. 400 InvalidArgument to checksum headers (`x-amz-checksum-…`,
`x-amz-sdk-checksum-algorithm`): cyberduck 16107, home-assistant 143995, xen-orchestra 8358. Only
AES256 as encryption, no KMS (backblaze.com/docs/cloud-storage-server-side-encryption).

**A store with virtual-hosted addresses only** (`virtual`), such as Alibaba Cloud OSS: 403
SecondLevelDomainForbidden to addresses with the bucket in the path: lakeFS 3490, s5cmd 518,
seaweedfs pull 6466.

**Ceph RGW** (`ceph`): 400 InvalidPart, without a text, to a completion that leaves out a part of
the upload ("total parts mismatch" in the log of the gateway; seen on 16.2.15 of Debian 12).

**OpenStack Swift** (`swift`): 501 NotImplemented to the algorithm CRC64NVME ("crc64nvme checksums
are not yet supported; clients attempting to use them will get back 501s", the change "s3api: Add
basic support for additional checksums" of openstack/swift).

**MinIO** (`minio`). An upload that announced checksums takes no part without one, so no copied
part either: 400 InvalidArgument "checksum missing" (cmd/erasure-multipart.go, `PutObjectPart`;
pgsty/silo 46). Its completion must name the checksum of each part: 400 InvalidPart
(`CompleteMultipartUpload` in the same file).

**A store that ignores checksums** (`ignores`), such as Google Cloud Storage: the announcement is
accepted and not repeated in the answer.

**A bucket whose policy asks for encryption** (`encrypted`: AES256, `encrypted-kms`: aws:kms): 403
AccessDenied to PutObject, CopyObject and CreateMultipartUpload whose header
`x-amz-server-side-encryption` is missing or has another value; UploadPart and UploadPartCopy take
no such header, they follow their upload: gomods/athens 2165, awslabs/mountpoint-s3 534, and the
policy "DenyUnencryptedObjectUploads" of the Amazon S3 user guide. The header is not passed on: the
server behind has no keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

SSE = "x-amz-server-side-encryption"
WRITES = frozenset({"PutObject", "CopyObject", "CreateMultipartUpload"})
"""Requests that begin an object, so that its properties are given with them."""
MIN_PART_BYTES = 5 * 1024**2


class Refusal(NamedTuple):
    """Answer of a store that refuses a request."""

    status: int
    code: str
    text: str


class Call(NamedTuple):
    """Request of a client, as far as rules look at it; header names are in lower case."""

    operation: str
    bucket: str
    key: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    virtual: bool
    """True if the bucket is in the host name, false if it is in the path."""
    region: str
    """Region of the signature."""
    part_sizes: Callable[[], Mapping[int, int]]
    """Asks the real store for the parts of the upload and their sizes, by number."""
    body: bytes
    """Body of CompleteMultipartUpload; empty for all others."""


Rule = Callable[[Call], Refusal | None]


class Profile(NamedTuple):
    """Kind of store: the rules it enforces, and headers that the server behind cannot take."""

    rules: tuple[Rule, ...]
    not_passed_on: frozenset[str] = frozenset()


def _equal_parts(call: Call) -> Refusal | None:
    if call.operation != "CompleteMultipartUpload":
        return None
    numbers = sorted(map(int, re.findall(rb"<PartNumber>(\d+)</PartNumber>", call.body)))
    known = call.part_sizes()
    sizes = [known[number] for number in numbers if number in known]
    if len(sizes) < len(numbers):
        return None  # The real store refuses it.
    if any(size < MIN_PART_BYTES for size in sizes[:-1]):
        return Refusal(
            400,
            "EntityTooSmall",
            "Your proposed upload is smaller than the minimum allowed object size.",
        )
    if len(set(sizes[:-1])) > 1 or (sizes and sizes[-1] > sizes[0]):
        return Refusal(400, "InvalidPart", "All non-trailing parts must have the same length.")
    return None


def _all_parts(call: Call) -> Refusal | None:
    if call.operation != "CompleteMultipartUpload":
        return None
    named = set(map(int, re.findall(rb"<PartNumber>(\d+)</PartNumber>", call.body)))
    return Refusal(400, "InvalidPart", "") if set(call.part_sizes()) - named else None


def _no_encryption(call: Call) -> Refusal | None:
    value = call.headers.get(SSE)
    if value is None:
        return None
    return Refusal(501, "NotImplemented", f"Header '{SSE}' with value '{value}' not implemented")


def _region_auto(call: Call) -> Refusal | None:
    if call.region in ("auto", "us-east-1", ""):
        return None
    return Refusal(
        400,
        "InvalidRegionName",
        f"The region name '{call.region}' is not valid. Must be one of: wnam, enam, weur, eeur, "
        "apac, auto",
    )


def _no_conditions(call: Call) -> Refusal | None:
    writes = WRITES | {"CompleteMultipartUpload"}
    if call.operation in writes and {"if-none-match", "if-match"} & set(call.headers):
        return Refusal(
            501,
            "NotImplemented",
            "A header you provided implies functionality that is not implemented",
        )
    return None


def _no_checksums(call: Call) -> Refusal | None:
    for name in call.headers:
        if name.startswith(("x-amz-checksum-", "x-amz-sdk-checksum-", "x-amz-trailer")):
            text = f"Unsupported header '{name}' received for this API call."
            return Refusal(400, "InvalidArgument", text)
    return None


def _no_crc64(call: Call) -> Refusal | None:
    if call.headers.get("x-amz-checksum-algorithm", "").upper() != "CRC64NVME":
        return None
    return Refusal(501, "NotImplemented", "The requested resource is not implemented")


class _AllChecksums:
    """Remembers which uploads announced checksums, by their keys."""

    def __init__(self) -> None:
        self._announced: set[str] = set()

    def __call__(self, call: Call) -> Refusal | None:
        if call.operation == "CreateMultipartUpload":
            change = self._announced.add if _ANNOUNCED in call.headers else self._announced.discard
            change(call.key)
        if call.key not in self._announced:
            return None
        is_part = call.operation in ("UploadPart", "UploadPartCopy")
        if is_part and "x-amz-checksum-crc64nvme" not in call.headers:
            text = 'Invalid arguments provided: (checksum missing, want "CRC64NVME", got "")'
            return Refusal(400, "InvalidArgument", text)
        parts, sums = call.body.count(b"<PartNumber>"), call.body.count(b"<ChecksumCRC64NVME>")
        return Refusal(400, "InvalidPart", "One or more parts") if sums < parts else None


def _no_kms(call: Call) -> Refusal | None:
    if call.headers.get(SSE, "AES256") == "AES256":
        return None
    return Refusal(400, "InvalidRequest", f"Unsupported value of header '{SSE}'")


def _virtual_only(call: Call) -> Refusal | None:
    if call.virtual:
        return None
    return Refusal(403, "SecondLevelDomainForbidden", "Please use virtual hosted style to access.")


def _encrypted(algorithm: str) -> Rule:
    def rule(call: Call) -> Refusal | None:
        if call.operation in WRITES and call.headers.get(SSE) != algorithm:
            return Refusal(403, "AccessDenied", "Access Denied")
        if call.operation not in WRITES and SSE in call.headers:
            text = f"{SSE} header is not supported for this operation."
            return Refusal(400, "InvalidArgument", text)
        return None

    return rule


def _sse_headers(names: Iterable[str]) -> frozenset[str]:
    return frozenset((SSE, *(f"{SSE}-{name}" for name in names)))


_ANNOUNCED = "x-amz-checksum-algorithm"
_PRIVATE = _sse_headers(("aws-kms-key-id", "bucket-key-enabled", "context"))

PROFILES: Mapping[str, Profile] = {
    "r2": Profile((_equal_parts, _no_encryption, _region_auto)),
    "b2": Profile((_no_conditions, _no_checksums, _no_kms), _PRIVATE),
    "ceph": Profile((_all_parts,)),
    "swift": Profile((_no_crc64,)),
    "minio": Profile((_AllChecksums(),)),
    "ignores": Profile((), frozenset({_ANNOUNCED, "x-amz-checksum-type"})),
    "virtual": Profile((_virtual_only,)),
    "encrypted": Profile((_encrypted("AES256"),), _PRIVATE),
    "encrypted-kms": Profile((_encrypted("aws:kms"),), _PRIVATE),
}
"""The kinds of stores by name."""
