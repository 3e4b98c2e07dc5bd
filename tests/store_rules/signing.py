"""Signature Version 4 of S3: what a request must be signed with, in its header or in its URL."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote

ALGORITHM = "AWS4-HMAC-SHA256"
TIME_FORMAT = "%Y%m%dT%H%M%SZ"
UNSIGNED = "UNSIGNED-PAYLOAD"


class Keys(NamedTuple):
    """The one access key of a store."""

    access: str
    secret: str


class _Claim(NamedTuple):
    scope: Sequence[str]
    """Access key, date, region, service and the last word."""
    moment: str
    headers: Sequence[str]
    signature: str


def signature(
    keys: Keys,
    method: str,
    target: str,
    headers: Mapping[str, str],
    signed: Sequence[str],
    moment: str,
    region: str,
) -> str:
    """Returns the signature of a request, whose header names are in lower case."""
    path, _, query = target.partition("?")
    pairs = (pair if "=" in pair else f"{pair}=" for pair in query.split("&") if pair)
    canonical = [
        method,
        path,
        "&".join(sorted(pair for pair in pairs if not pair.startswith("X-Amz-Signature="))),
        *(f"{name}:{' '.join(headers.get(name, '').split())}" for name in signed),
        "",
        ";".join(signed),
        headers.get("x-amz-content-sha256", UNSIGNED),
    ]
    scope = f"{moment[:8]}/{region}/s3/aws4_request"
    digest = hashlib.sha256("\n".join(canonical).encode()).hexdigest()
    key = f"AWS4{keys.secret}".encode()
    for word in scope.split("/"):
        key = hmac.digest(key, word.encode(), "sha256")
    return hmac.digest(key, f"{ALGORITHM}\n{moment}\n{scope}\n{digest}".encode(), "sha256").hex()


def refusal(
    keys: Keys, method: str, target: str, headers: Mapping[str, str]
) -> tuple[int, str, str] | None:
    """Returns status, code and text with which S3 refuses the request, or None if it is signed."""
    claim = _header(headers) if "authorization" in headers else _link(target)
    if claim is None:
        return 403, "AccessDenied", "Access Denied"
    if claim.scope[0] != keys.access:
        return 403, "InvalidAccessKeyId", "The access key ID does not exist in our records."
    own = signature(keys, method, target, headers, claim.headers, claim.moment, claim.scope[2])
    if own != claim.signature:
        return 403, "SignatureDoesNotMatch", "The calculated signature does not match."
    seconds = dict(parse_qsl(target.partition("?")[2])).get("X-Amz-Expires")
    if seconds is not None:
        began = datetime.strptime(claim.moment, TIME_FORMAT).replace(tzinfo=UTC)
        if datetime.now(UTC) > began + timedelta(seconds=int(seconds)):
            return 403, "AccessDenied", "Request has expired"
    return None


def _header(headers: Mapping[str, str]) -> _Claim | None:
    algorithm, _, rest = headers["authorization"].partition(" ")
    fields = dict(field.strip().split("=", 1) for field in rest.split(",") if "=" in field)
    if algorithm != ALGORITHM or {"Credential", "SignedHeaders", "Signature"} - set(fields):
        return None
    return _Claim(
        fields["Credential"].split("/"),
        headers.get("x-amz-date", ""),
        fields["SignedHeaders"].split(";"),
        fields["Signature"],
    )


def _link(target: str) -> _Claim | None:
    fields = dict(parse_qsl(target.partition("?")[2]))
    if fields.get("X-Amz-Algorithm") != ALGORITHM:
        return None
    return _Claim(
        unquote(fields["X-Amz-Credential"]).split("/"),
        fields["X-Amz-Date"],
        fields["X-Amz-SignedHeaders"].split(";"),
        fields["X-Amz-Signature"],
    )


def sign(keys: Keys, method: str, target: str, headers: dict[str, str]) -> None:
    """Adds the headers that sign a request; `headers`, in lower case, must have `host`."""
    moment = datetime.now(UTC).strftime(TIME_FORMAT)
    headers["x-amz-date"] = moment
    headers.setdefault("x-amz-content-sha256", UNSIGNED)
    signed = sorted(
        name for name in headers if name in ("host", "content-md5") or name.startswith("x-amz-")
    )
    own = signature(keys, method, target, headers, signed, moment, "us-east-1")
    headers["authorization"] = (
        f"{ALGORITHM} Credential={keys.access}/{moment[:8]}/us-east-1/s3/aws4_request,"
        f"SignedHeaders={';'.join(signed)},Signature={own}"
    )
