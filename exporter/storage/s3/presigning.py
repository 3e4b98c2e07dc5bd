"""Presigned URLs, byte for byte those of boto3, made at a thirtieth of the cost."""

from __future__ import annotations

import calendar
import hashlib
import hmac
import re
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
"""Value that boto3 writes into a URL to name Signature Version 4."""
_TIME_FORMAT = "%Y%m%dT%H%M%SZ"
_PROBE_KEY = "a b/ü~+=&"
"""Key whose URL, signed by boto3, shows how boto3 escapes special characters."""
_PROBE_SECONDS = 60
_plain = re.compile(r"[A-Za-z0-9/._~-]*").fullmatch
"""Matches a key that a URL has unchanged, as almost all are; `quote` takes three times as long."""
_PORTS = {"http": 80, "https": 443}


def url(client: S3Client, bucket: str, key: str, seconds: int) -> str:
    """Returns the URL that boto3 would return now for a GET of the key, byte for byte.

    boto3's URL is that of `client.generate_presigned_url("get_object", …)`. The credentials are
    those of the client; they are refreshed when they are due. This module signs only in the usual
    case: Signature Version 4, and all objects at one host. Other cases (older signatures, directory
    buckets, hooks that change the request) are detected once for each client and bucket, and boto3
    then makes the URL. boto3 also gets each key that it would refuse, and its errors are raised.
    """
    signers = _signers.setdefault(client, {})
    if bucket not in signers:
        signers[bucket] = _make_signer(client, bucket)
    signer = signers[bucket]
    credentials = signer.credentials() if signer is not None and key else None
    if signer is None or credentials is None:
        return _by_boto3(client, bucket, key, seconds)
    return signer.sign(credentials, key, seconds, time.time())


class _Signer:
    """Signs GET requests for the objects of one bucket, at the address that boto3 uses for it."""

    def __init__(self, base: str, region: str, requests: RequestSigner) -> None:
        """Stores `base`, the URL of the bucket up to the key."""
        self._base = base
        self._region = region
        self._requests = requests
        place = urlsplit(base)
        host = f"[{place.hostname}]" if ":" in (place.hostname or "") else place.hostname
        if place.port is not None and place.port != _PORTS[place.scheme]:
            host = f"{host}:{place.port}"
        self._path = place.path
        self._head = f"\nhost:{host}\n\nhost\nUNSIGNED-PAYLOAD"
        self._signing_key = _SigningKey("", None, b"", "", "", "")

    def credentials(self) -> ReadOnlyCredentials | None:
        """Returns the credentials to sign with now; refreshes temporary credentials."""
        auth: SigV4Auth = self._requests.get_auth_instance("s3", self._region, _VERSION)
        return cast("ReadOnlyCredentials | None", auth.credentials)

    def sign(self, credentials: ReadOnlyCredentials, key: str, seconds: int, now: float) -> str:
        """Returns the URL of a key; the URL expires `seconds` after `now`, a Unix time."""
        moment = time.strftime(_TIME_FORMAT, time.gmtime(now))
        cached = self._signing_key
        if cached.date != moment[:8] or cached.credentials != credentials:
            cached = self._signing_key = self._derive_key(moment[:8], credentials)
        first = f"{cached.first}&X-Amz-Date={moment}&X-Amz-Expires={seconds}"
        signed, token = "&X-Amz-SignedHeaders=host", cached.token
        place = key if _plain(key) else quote(key, safe="/~")
        # The last two parameters differ in order: the signed text is sorted, the URL is not.
        request = f"GET\n{self._path}{place}\n{first}{token}{signed}{self._head}"
        digest = hashlib.sha256(request.encode()).hexdigest()
        text = f"{_ALGORITHM}\n{moment}\n{cached.scope}\n{digest}"
        signature = hmac.digest(cached.key, text.encode(), "sha256").hex()
        return f"{self._base}{place}?{first}{signed}{token}&X-Amz-Signature={signature}"

    def _derive_key(self, date: str, credentials: ReadOnlyCredentials) -> _SigningKey:
        key = f"AWS4{credentials.secret_key}".encode()
        for word in (date, self._region, "s3", "aws4_request"):
            key = hmac.digest(key, word.encode(), "sha256")
        scope = f"{date}/{self._region}/s3/aws4_request"
        first = (
            f"X-Amz-Algorithm={_ALGORITHM}"
            f"&X-Amz-Credential={_quoted(f'{credentials.access_key}/{scope}')}"
        )
        token = ""
        if credentials.token is not None:
            token = f"&X-Amz-Security-Token={_quoted(credentials.token)}"
        return _SigningKey(date, credentials, key, scope, first, token)


class _SigningKey(NamedTuple):
    """A signing key of Signature Version 4, and the URL parameters that are the same all day."""

    date: str
    credentials: ReadOnlyCredentials | None
    key: bytes
    scope: str
    first: str
    """The first parameters of a URL."""
    token: str
    """The parameter of temporary credentials; empty for others."""


_signers: WeakKeyDictionary[S3Client, dict[str, _Signer | None]] = WeakKeyDictionary()


def _make_signer(client: S3Client, bucket: str) -> _Signer | None:
    """Returns a signer for the bucket, or None if only boto3 can sign its URLs.

    The address and the region are taken from a URL that boto3 has signed.
    """
    captured: dict[str, Any] = {}

    def capture(**params: Any) -> None:
        captured.update(params)

    client.meta.events.register_last("before-sign.s3.GetObject", capture)
    try:
        boto3_url = _by_boto3(client, bucket, _PROBE_KEY, _PROBE_SECONDS)
    finally:
        client.meta.events.unregister("before-sign.s3.GetObject", capture)
    base, found, query = boto3_url.partition(quote(_PROBE_KEY, safe="/~") + "?")
    if not found or captured["signature_version"] != _VERSION:
        return None
    fields = parse_qs(query)
    region = fields["X-Amz-Credential"][0].split("/")[-3]
    began = calendar.timegm(time.strptime(fields["X-Amz-Date"][0], _TIME_FORMAT))
    signer = _Signer(base, region, captured["request_signer"])
    credentials = signer.credentials()
    if credentials is None:
        return None
    # This signer is used only if it makes the same URL as boto3.
    own_url = signer.sign(credentials, _PROBE_KEY, _PROBE_SECONDS, began)
    return signer if own_url == boto3_url else None


def _by_boto3(client: S3Client, bucket: str, key: str, seconds: int) -> str:
    return client.generate_presigned_url(
        "get_object", Params={"Bucket": bucket, "Key": key}, ExpiresIn=seconds
    )


def _quoted(text: str) -> str:
    return quote(text, safe="-._~")
