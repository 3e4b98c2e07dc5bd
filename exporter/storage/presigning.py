"""Links to objects, signed as boto3 signs them, for a thirtieth of what boto3 takes."""

from __future__ import annotations

import calendar
import hashlib
import hmac
import time
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from urllib.parse import parse_qs, quote, urlsplit
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from botocore.auth import SigV4Auth
    from botocore.credentials import ReadOnlyCredentials
    from botocore.signers import RequestSigner
    from mypy_boto3_s3 import S3Client

_ALGORITHM = "AWS4-HMAC-SHA256"
_VERSION = "s3v4-query"
"""What boto3 calls it in a URL."""
_MOMENT = "%Y%m%dT%H%M%SZ"
_PROBE = "a b/ü~+=&"
"""A key that shows how keys are spelled in a URL."""
_PROBE_SECONDS = 60
_PORTS = {"http": 80, "https": 443}


def url(client: S3Client, bucket: str, key: str, seconds: int) -> str:
    """The URL that `client.generate_presigned_url("get_object", …)` would give now, byte for byte.

    Credentials are those of the client, refreshed when they are due. What differs from plain
    Signature Version 4 over one host (older signatures, directory buckets, hooks that change the
    request) is found out once for each client and bucket, and is left to boto3; so is a key that
    it refuses. Raises what boto3 raises.
    """
    signers = _signers.setdefault(client, {})
    if bucket not in signers:
        signers[bucket] = _learn(client, bucket)
    signer = signers[bucket]
    credentials = signer.credentials() if signer is not None and key else None
    if signer is None or credentials is None:
        return _by_boto3(client, bucket, key, seconds)
    return signer.sign(credentials, key, seconds, time.time())


class _Signer:
    """Signs GETs of the objects of one bucket, once it is known where boto3 sends them."""

    def __init__(self, base: str, region: str, requests: RequestSigner) -> None:
        """`base` is the URL up to the key."""
        self._base = base
        self._region = region
        self._requests = requests
        place = urlsplit(base)
        host = f"[{place.hostname}]" if ":" in (place.hostname or "") else place.hostname
        if place.port is not None and place.port != _PORTS[place.scheme]:
            host = f"{host}:{place.port}"
        self._path = place.path
        self._head = f"\nhost:{host}\n\nhost\nUNSIGNED-PAYLOAD"
        self._day = _Day("", None, b"")

    def credentials(self) -> ReadOnlyCredentials | None:
        """Those to sign with now: temporary ones are exchanged for new ones in here."""
        auth: SigV4Auth = self._requests.get_auth_instance("s3", self._region, _VERSION)
        return cast("ReadOnlyCredentials | None", auth.credentials)

    def sign(self, credentials: ReadOnlyCredentials, key: str, seconds: int, now: float) -> str:
        """The URL of a key that dies `seconds` after `now`, a Unix time."""
        moment = time.strftime(_MOMENT, time.gmtime(now))
        day = self._day
        if (moment[:8], credentials) != day[:2]:
            day = self._day = self._begin(moment[:8], credentials)
        scope = f"{day.date}/{self._region}/s3/aws4_request"
        first = (
            f"X-Amz-Algorithm={_ALGORITHM}"
            f"&X-Amz-Credential={_quoted(f'{credentials.access_key}/{scope}')}"
            f"&X-Amz-Date={moment}&X-Amz-Expires={seconds}"
        )
        signed, token = "&X-Amz-SignedHeaders=host", ""
        if credentials.token is not None:
            token = f"&X-Amz-Security-Token={_quoted(credentials.token)}"
        place = quote(key, safe="/~")
        # The order of the two last differs: what is signed is sorted, the URL is not.
        request = f"GET\n{self._path}{place}\n{first}{token}{signed}{self._head}"
        digest = hashlib.sha256(request.encode()).hexdigest()
        text = f"{_ALGORITHM}\n{moment}\n{scope}\n{digest}"
        signature = hmac.digest(day.key, text.encode(), "sha256").hex()
        return f"{self._base}{place}?{first}{signed}{token}&X-Amz-Signature={signature}"

    def _begin(self, date: str, credentials: ReadOnlyCredentials) -> _Day:
        key = f"AWS4{credentials.secret_key}".encode()
        for word in (date, self._region, "s3", "aws4_request"):
            key = hmac.digest(key, word.encode(), "sha256")
        return _Day(date, credentials, key)


class _Day(NamedTuple):
    """What is the same for all that some credentials sign on one day."""

    date: str
    credentials: ReadOnlyCredentials | None
    key: bytes


_signers: WeakKeyDictionary[S3Client, dict[str, _Signer | None]] = WeakKeyDictionary()


def _learn(client: S3Client, bucket: str) -> _Signer | None:
    """How to sign for a bucket, from a link that boto3 signs; None if that is not how we sign."""
    heard: dict[str, Any] = {}

    def hear(**told: Any) -> None:
        heard.update(told)

    client.meta.events.register_last("before-sign.s3.GetObject", hear)
    try:
        theirs = _by_boto3(client, bucket, _PROBE, _PROBE_SECONDS)
    finally:
        client.meta.events.unregister("before-sign.s3.GetObject", hear)
    base, found, query = theirs.partition(quote(_PROBE, safe="/~") + "?")
    if not found or heard["signature_version"] != _VERSION:
        return None
    told = parse_qs(query)
    region = told["X-Amz-Credential"][0].split("/")[-3]
    began = calendar.timegm(time.strptime(told["X-Amz-Date"][0], _MOMENT))
    signer = _Signer(base, region, heard["request_signer"])
    credentials = signer.credentials()
    if credentials is None:
        return None
    # Only what comes out the same may be signed here.
    ours = signer.sign(credentials, _PROBE, _PROBE_SECONDS, began)
    return signer if ours == theirs else None


def _by_boto3(client: S3Client, bucket: str, key: str, seconds: int) -> str:
    return client.generate_presigned_url(
        "get_object", Params={"Bucket": bucket, "Key": key}, ExpiresIn=seconds
    )


def _quoted(text: str) -> str:
    return quote(text, safe="-._~")
