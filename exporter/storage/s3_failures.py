"""What each failure of an S3 means to the engine: the table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from exporter.errors import ObjectExists, StorageError, StorageUnavailable, UploadGone

PATIENCE = 60.0
"""Seconds for which a request is tried again while the store may come back."""
OPERATOR_PATIENCE = 4.0
"""Seconds for which a refusal is tried again that only an operator can end: new keys and new
buckets take a moment until all of a store knows them."""


class Missing(StorageError):
    """No object has that key."""


class Refused(StorageUnavailable):
    """The store answers, and refuses until an operator mends what the text says."""


class Reaction(NamedTuple):
    """What one kind of failure means to the engine."""

    raises: type[StorageError]
    patience: float = 0.0
    advice: str = ""


_LATER = Reaction(StorageUnavailable, PATIENCE, "The store may answer later.")
_NEVER = Reaction(StorageError)
_MISSING = Reaction(Missing)
_GONE = Reaction(UploadGone)
_EXISTS = Reaction(ObjectExists)
_KEYS = Reaction(
    Refused,
    OPERATOR_PATIENCE,
    "Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or the profile or role that stands for "
    "them), and that they may list the bucket and read, write and delete its objects.",
)
_CLOCK = Reaction(Refused, OPERATOR_PATIENCE, "Set this machine's clock: the store's differs.")
_BUCKET = Reaction(
    Refused, OPERATOR_PATIENCE, "Create the bucket, or name another in EXPORTER_S3_BUCKET."
)
_REGION = Reaction(
    Refused,
    OPERATOR_PATIENCE,
    "Set EXPORTER_S3_REGION, and EXPORTER_S3_ENDPOINT_URL if there is one, to the bucket's own.",
)
_FULL = Reaction(Refused, OPERATOR_PATIENCE, "Make room in the store, or raise its quota.")

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
    # The body was damaged or cut on its way; the next copy may arrive whole.
    "BadDigest": _LATER,
    "IncompleteBody": _LATER,
    "XAmzContentSHA256Mismatch": _LATER,
    "NotImplemented": _NEVER,
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
    "QuotaExceeded": _FULL,
    "InsufficientStorage": _FULL,
    "XMinioStorageFull": _FULL,
    "XMinioAdminBucketQuotaExceeded": _FULL,
    # A HEAD has no body: its status is all that is known.
    "301": _REGION,
    "400": _KEYS,
    "403": _KEYS,
    "404": _MISSING,
    "412": _EXISTS,
}
"""By the code in the store's answer; the names beyond those of AWS are of Ceph and MinIO."""

_STATUSES: Mapping[int, Reaction] = {401: _KEYS, 403: _KEYS, 429: _LATER, 507: _FULL}
"""For codes that nobody has heard of; other ones from 500 upward are `_LATER`."""

_EXCEPTIONS: Mapping[type[BaseException], Reaction] = {
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
"""By the nearest base class, for failures without an answer of the store."""


def classify(error: Exception) -> tuple[Reaction, str]:
    """What a failure means, and its cause in words."""
    if isinstance(error, boto.ClientError):
        code = error.response["Error"].get("Code", "")
        status = error.response["ResponseMetadata"].get("HTTPStatusCode", 0)
        otherwise = _STATUSES.get(status, _LATER if status >= 500 else _NEVER)
        message = error.response["Error"].get("Message", "no message")
        return _CODES.get(code, otherwise), f"{code}: {message} (HTTP {status})"
    kinds = (kind for kind in type(error).__mro__ if kind in _EXCEPTIONS)
    reaction = _EXCEPTIONS.get(next(kinds, type(error)), _NEVER)
    return reaction, f"{type(error).__name__}: {error}"
