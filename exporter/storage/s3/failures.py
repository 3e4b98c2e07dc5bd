"""Decides, for each kind of failure of an S3, on the error, the retry time and the advice."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from exporter.core import public_text
from exporter.errors import ObjectExists, StorageError, StorageUnavailable, UploadGone
from exporter.storage.s3.encryption import Encryption

RETRY_SECONDS = 60.0
"""Time for which a request is retried if the store may recover by itself."""
OPERATOR_RETRY_SECONDS = 4.0
"""Time for which a request is retried if only an operator can correct the cause.

A retry can help here too: new credentials and new buckets take a moment to be known in the whole
store.
"""


class Missing(StorageError):
    """No object has that key."""


class Unsupported(StorageError):
    """The store does not know a header of the request."""


class WrongParts(StorageError):
    """The parts of a completion are not those that the store has or wants."""


class OtherBytes(StorageError):
    """The object would not have the checksum that was sent."""


class Refused(StorageUnavailable):
    """The store refuses the request until an operator corrects the cause named in the text."""


class Completing(StorageUnavailable):
    """The store says that the upload is being completed; Ceph 16 says so of a lost upload, too."""


class Reaction(NamedTuple):
    """Error, retry time and advice for one kind of failure."""

    raises: type[StorageError]
    retry_seconds: float = 0.0
    advice: str = ""


_LATER = Reaction(StorageUnavailable, RETRY_SECONDS, "The store may answer later.")
_NEVER = Reaction(StorageError)
_UNSUPPORTED = Reaction(Unsupported)
_WRONG_PARTS = Reaction(WrongParts)
_MISSING = Reaction(Missing)
_GONE = Reaction(UploadGone)
_EXISTS = Reaction(ObjectExists)
_KEYS = Reaction(
    Refused,
    OPERATOR_RETRY_SECONDS,
    "Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or the profile or role that replaces "
    "them), and that they may list the bucket and read, write and delete its objects.",
)
_CLOCK = Reaction(
    Refused,
    OPERATOR_RETRY_SECONDS,
    "Correct the clock of this machine: it differs from the clock of the store.",
)
_BUCKET = Reaction(
    Refused, OPERATOR_RETRY_SECONDS, "Create the bucket, or name another in EXPORTER_S3_BUCKET."
)
_REGION = Reaction(
    Refused,
    OPERATOR_RETRY_SECONDS,
    "Set EXPORTER_S3_REGION, and EXPORTER_S3_ENDPOINT_URL if there is one, to the bucket's own.",
)
_ADDRESSING = Reaction(
    Refused,
    OPERATOR_RETRY_SECONDS,
    "The store wants the bucket in the host name: set EXPORTER_S3_ADDRESSING=virtual.",
)
_ENCRYPTION = Reaction(
    Refused,
    OPERATOR_RETRY_SECONDS,
    "Check EXPORTER_S3_SSE, the encryption of the bucket, and that these credentials may use its "
    "key.",
)
_UNREACHABLE = Reaction(
    StorageUnavailable, RETRY_SECONDS, "No connection: the store may answer later."
)
_COMPLETING = Reaction(Completing, OPERATOR_RETRY_SECONDS, "The store may answer later.")
_OTHER_BYTES = Reaction(
    OtherBytes,
    advice="The store holds other bytes than those that were sent, so nothing was published: "
    "export again.",
)
_FULL = Reaction(Refused, OPERATOR_RETRY_SECONDS, "Make room in the store, or raise its quota.")

_CODES: Mapping[str, Reaction] = {
    "SlowDown": _LATER,
    "ServiceUnavailable": _LATER,
    "InternalError": _LATER,
    "InternalFailure": _LATER,
    "ServerBusy": _LATER,
    "Throttling": _LATER,
    "ThrottlingException": _LATER,
    "RequestLimitExceeded": _LATER,
    "TooManyRequests": _LATER,
    "RequestTimeout": _LATER,
    "RequestTimeoutException": _LATER,
    "OperationAborted": _LATER,
    "ConditionalRequestConflict": _LATER,
    # The body was damaged or truncated in transit; the next try may succeed.
    "BadDigest": _LATER,
    "IncompleteBody": _LATER,
    "XAmzContentSHA256Mismatch": _LATER,
    "XAmzContentChecksumMismatch": _LATER,
    "NotImplemented": _UNSUPPORTED,
    "InvalidPart": _WRONG_PARTS,
    "NoSuchUpload": _GONE,
    "PreconditionFailed": _EXISTS,
    "NoSuchKey": _MISSING,
    "AccessDenied": _KEYS,
    "AllAccessDisabled": _KEYS,
    "AccountProblem": _KEYS,
    "NotSignedUp": _KEYS,
    "InvalidAccessKeyId": _KEYS,
    "SignatureDoesNotMatch": _KEYS,
    "ExpiredToken": _KEYS,
    "InvalidToken": _KEYS,
    "TokenRefreshRequired": _KEYS,
    "RequestTimeTooSkewed": _CLOCK,
    "RequestExpired": _CLOCK,
    "NoSuchBucket": _BUCKET,
    "InvalidBucketName": _BUCKET,
    "PermanentRedirect": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "InvalidRegionName": _REGION,
    "SecondLevelDomainForbidden": _ADDRESSING,
    "PathStyleDomainForbidden": _ADDRESSING,
    "VirtualHostDomainRequired": _ADDRESSING,
    "InvalidPathAccess": _ADDRESSING,
    "QuotaExceeded": _FULL,
    "InsufficientStorage": _FULL,
    "XMinioStorageFull": _FULL,
    "XMinioAdminBucketQuotaExceeded": _FULL,
    # The answer to a HEAD has no body, so only its status is known.
    "301": _REGION,
    "400": _KEYS,
    "403": _KEYS,
    "404": _MISSING,
    "412": _EXISTS,
}
"""Reactions by the code in the store's answer.

Codes that AWS does not have come from Ceph and MinIO; those for addressing, in this order, from
Alibaba Cloud OSS, Tencent COS, Huawei OBS and Volcengine TOS.
"""

_DAMAGED = frozenset({"BadDigest", "XAmzContentChecksumMismatch"})

_STATUSES: Mapping[int, Reaction] = {
    401: _KEYS,
    403: _KEYS,
    429: _LATER,
    501: _UNSUPPORTED,
    507: _FULL,
}
"""Reactions by HTTP status, for unknown codes; other statuses from 500 upward are `_LATER`."""

_EXCEPTIONS: Mapping[type[BaseException], Reaction] = {
    boto.EndpointConnectionError: _UNREACHABLE,
    boto.HTTPClientError: _LATER,
    boto.ConnectionError: _LATER,
    boto.IncompleteReadError: _LATER,
    boto.FlexibleChecksumError: _LATER,
    ResponseParserError: _LATER,
    boto.NoCredentialsError: _KEYS,
    boto.PartialCredentialsError: _KEYS,
    boto.CredentialRetrievalError: _KEYS,
    boto.TokenRetrievalError: _KEYS,
    boto.SSOError: _KEYS,
    boto.ProfileNotFound: _KEYS,
    boto.ParamValidationError: _BUCKET,
}
"""Reactions to failures without an answer of the store, by the nearest base class."""


PERHAPS_ADDRESSING = frozenset({_UNREACHABLE, _BUCKET, _NEVER})
"""Reactions to what a store that knows only paths does with a bucket in the host name.

Its host name is unknown, or the store takes the first word of the key for a bucket.
"""
USE_PATHS = "If the store wants the bucket in the path, set EXPORTER_S3_ADDRESSING=path."


_ASKS_FOR_VIRTUAL = re.compile(r"virtual[- ]?host|virtual[- ]styled|path[- ]style", re.IGNORECASE)
"""Texts with which stores whose codes are unknown here refuse a bucket in the path."""


ENCRYPTED_WRITES = frozenset({"PutObject", "CreateMultipartUpload"})
"""Requests that ask for the encryption of an object."""
_ON_ENCRYPTION = re.compile(r"\bKMS\b|server.?side.?encryption", re.IGNORECASE)


def with_encryption(reaction: Reaction, encryption: Encryption | None) -> str:
    """Returns the advice for a failed write, with EXPORTER_S3_SSE if that may be the reason."""
    if reaction is not _KEYS:
        return reaction.advice
    if encryption is None:
        return f"{reaction.advice} If the bucket's policy asks for encryption, set EXPORTER_S3_SSE."
    return f"{reaction.advice} Check EXPORTER_S3_SSE ({encryption}) against the bucket's policy."


def classify(error: Exception) -> tuple[Reaction, str]:
    """Returns the reaction to a failed S3 call (retry, or which error to raise), and its cause."""
    if isinstance(error, boto.ClientError):
        code = error.response["Error"].get("Code") or ""
        status = error.response["ResponseMetadata"].get("HTTPStatusCode", 0)
        message = error.response["Error"].get("Message") or "no message"
        otherwise = _STATUSES.get(status, _LATER if status >= 500 else _NEVER)
        if "multipart completion is already in progress" in message:
            return _COMPLETING, f"{code}: {message} (HTTP {status})"
        if code in _DAMAGED and error.operation_name == "CompleteMultipartUpload":
            return _OTHER_BYTES, f"{code}: {message} (HTTP {status})"
        if status in (400, 501) and _ON_ENCRYPTION.search(f"{code} {message}"):
            return _ENCRYPTION, f"{code}: {message} (HTTP {status})"
        if otherwise is _NEVER and "if-none-match" in message.lower():
            otherwise = _UNSUPPORTED
        elif _ASKS_FOR_VIRTUAL.search(message):
            otherwise = _ADDRESSING
        return _CODES.get(code, otherwise), f"{code}: {message} (HTTP {status})"
    kinds = (kind for kind in type(error).__mro__ if kind in _EXCEPTIONS)
    reaction = _EXCEPTIONS.get(next(kinds, type(error)), _NEVER)
    # Of the URL, which has the bucket, the key and the query, only the host is of use.
    return reaction, public_text.with_hosts_only(f"{type(error).__name__}: {error}")
