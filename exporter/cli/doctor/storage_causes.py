"""Names the cause, the variable and the remedy when the object store fails a check."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import urlsplit

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from exporter.cli.doctor import http_probe
from exporter.cli.doctor.checks import Problem
from exporter.errors import ExporterError
from exporter.settings import Settings

ENDPOINT = "EXPORTER_S3_ENDPOINT_URL"
KEY_ID = "AWS_ACCESS_KEY_ID"
SECRET = "AWS_SECRET_ACCESS_KEY"  # noqa: S105 - the name of a variable
_CHOICES = ("EXPORTER_S3_SSE", "EXPORTER_S3_ADDRESSING")
_PEEK_SECONDS = 1.0
_NO_S3 = "give the address of an S3, which may be another port of the same server"


_CODES: Mapping[str, Callable[[Settings], Problem]] = {
    "InvalidAccessKeyId": lambda _: Problem(
        "the store does not know the access key", KEY_ID, "correct it"
    ),
    "SignatureDoesNotMatch": lambda _: Problem(
        "the store rejects the signature of the secret key", SECRET, "correct it"
    ),
    "AccessDenied": lambda own: Problem(
        f"the store refuses these credentials for the bucket {own.s3_bucket!r}",
        KEY_ID,
        "allow them to list the bucket and to read, write and delete its objects",
    ),
    "ExpiredToken": lambda _: Problem(
        "the temporary credentials have expired", "AWS_SESSION_TOKEN", "renew them"
    ),
    "InvalidToken": lambda _: Problem(
        "the store rejects the session token",
        "AWS_SESSION_TOKEN",
        "renew it, or leave it out for keys that need none",
    ),
    "NoSuchBucket": lambda own: Problem(
        f"the store has no bucket {own.s3_bucket!r}",
        "EXPORTER_S3_BUCKET",
        "create it, or name another",
    ),
    "RequestTimeTooSkewed": lambda _: Problem(
        "the clock of this machine differs from the clock of the store",
        None,
        "correct the clock, for example by NTP",
    ),
}
_ALIASES: Mapping[str, str] = {"403": "AccessDenied", "RequestExpired": "RequestTimeTooSkewed"}
_REGION_CODES = frozenset(
    {
        "PermanentRedirect",
        "AuthorizationHeaderMalformed",
        "IllegalLocationConstraintException",
        "InvalidRegionName",
        "301",
    }
)


def problem(error: Exception, settings: Settings) -> Problem:
    """Returns the cause of an error of the object store; its text has no text of a library."""
    named = next((name for name in _CHOICES if name in str(error)), None)
    if named is not None:  # the store of this bucket was found to need another choice
        return Problem(str(error).rstrip("."), variable=named)
    for one in _chain(error):
        cause = _cause(one, settings)
        if cause is not None:
            return cause
    if isinstance(error, ExporterError):
        return Problem(str(error).rstrip("."))
    return Problem(f"{_place(settings)} answers, but not as an S3", ENDPOINT, _NO_S3)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _cause(error: BaseException, settings: Settings) -> Problem | None:
    where = _place(settings)
    if isinstance(error, boto.ClientError):
        return _refusal(error, settings)
    if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError):
        return Problem(
            "the credentials for the object store are missing",
            KEY_ID,
            f"set it and {SECRET}, or give this machine a profile or role",
        )
    if isinstance(error, ResponseParserError):
        return Problem(f"{where} answers, but not as an S3", ENDPOINT, _NO_S3)
    if isinstance(error, boto.HTTPClientError | boto.ConnectionError):
        return _silence(error, where)
    return None


def _refusal(error: boto.ClientError, settings: Settings) -> Problem | None:
    answer = error.response.get("Error", {})
    code = str(answer.get("Code", ""))
    headers = error.response["ResponseMetadata"].get("HTTPHeaders", {})
    if code in _REGION_CODES:
        region = answer.get("Region") or headers.get("x-amz-bucket-region")
        return Problem(
            f"the bucket {settings.s3_bucket!r} is in another region",
            "EXPORTER_S3_REGION",
            f"set it to {region}" if region else "set it to the region of the bucket",
        )
    known = _CODES.get(_ALIASES.get(code, code))
    if known is not None:
        return known(settings)
    # Without a body of an S3, botocore takes the status for the code; a HEAD never has a body.
    if (code.isdigit() or not code) and error.operation_name != "HeadObject":
        where = _place(settings)
        status = error.response["ResponseMetadata"].get("HTTPStatusCode")
        if _speaks_tls(where):
            return Problem(f"{where} speaks TLS", ENDPOINT, "write https:// instead of http://")
        # botocore takes a 200 without a body of an S3 for a 500.
        how = "answers" if status in (None, 200, 500) else f"answers HTTP {status}"
        return Problem(f"{where} {how}, but not as an S3", ENDPOINT, _NO_S3)
    return None


def _silence(error: BaseException, where: str) -> Problem:
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return Problem(
            f"the TLS certificate of {where} is not trusted",
            "AWS_CA_BUNDLE",
            "set it to the file of the certificate's authority",
        )
    if isinstance(error, boto.SSLError):
        return Problem(f"{where} speaks no TLS", ENDPOINT, "write http:// instead of https://")
    if isinstance(error, boto.ProxyConnectionError):
        return Problem(
            f"{where} cannot be reached through the proxy of HTTP_PROXY or HTTPS_PROXY",
            "NO_PROXY",
            "name the host of the store in it, or correct the proxy",
        )
    if _speaks_tls(where):
        return Problem(f"{where} speaks TLS", ENDPOINT, "write https:// instead of http://")
    if isinstance(error, boto.ConnectTimeoutError | boto.ReadTimeoutError):
        return Problem(f"{where} does not answer", ENDPOINT, "check the address and the firewalls")
    return Problem(f"{where} {_reach(where)}", ENDPOINT, "start the store, or correct the address")


def _reach(where: str) -> str:
    """Returns why no connection to the address comes about."""
    parts = urlsplit(where)
    try:
        place = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        with socket.create_connection(place, _PEEK_SECONDS):
            return "closes the connection"
    except socket.gaierror:
        return "has an unknown host name"
    except ConnectionRefusedError:
        return "refuses connections"
    except (OSError, ValueError):
        return "cannot be reached"


def _speaks_tls(where: str) -> bool:
    """True if the plain address in fact makes a TLS handshake."""
    parts = urlsplit(where)
    if parts.scheme != "http" or not parts.hostname:
        return False
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # only to learn whether TLS is spoken; nothing is sent
    try:
        with (
            socket.create_connection((parts.hostname, parts.port or 80), _PEEK_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=parts.hostname),
        ):
            return True
    except OSError:
        return False


def _place(settings: Settings) -> str:
    return http_probe.place(settings.s3_endpoint_url or "") or "AWS"
