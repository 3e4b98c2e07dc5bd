"""Signs webhooks as Standard Webhooks 1.0.0 defines.

With the signature a receiver can verify that a webhook is authentic, unchanged and recent.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Sequence
from secrets import token_bytes

from exporter.errors import ExporterError

PREFIX = "whsec_"
MIN_KEY_BYTES, MAX_KEY_BYTES = 24, 64
"""Bounds of the length of a decoded secret, from the specification."""
_MESSAGE_ID = re.compile(r"[A-Za-z0-9_-]{1,200}")


class SecretRefused(ExporterError):
    """A signing secret has a format that receivers' libraries cannot read.

    The error text never quotes the secret.
    """


def new_secret() -> str:
    """Returns a random secret of 32 bytes in the format `whsec_<base64>`."""
    return PREFIX + base64.b64encode(token_bytes(32)).decode()


def decode_secret(secret: str) -> bytes:
    """Returns the key bytes of a `whsec_` secret. Raises SecretRefused with the reason."""
    form = f"write {PREFIX} and the base64 of {MIN_KEY_BYTES} to {MAX_KEY_BYTES} random bytes"
    if not secret.startswith(PREFIX):
        raise SecretRefused(f"the signing secret does not begin with {PREFIX}: {form}")
    try:
        found = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise SecretRefused(
            f"the signing secret is not standard base64 with padding after {PREFIX}: {form}"
        ) from None
    if not MIN_KEY_BYTES <= len(found) <= MAX_KEY_BYTES:
        raise SecretRefused(f"the signing secret decodes to {len(found)} bytes: {form}")
    return found


def sign(secrets: Sequence[str], message_id: str, timestamp: int, body: bytes) -> str:
    """Returns one `v1,` signature for each secret, separated by spaces.

    A receiver accepts any of the signatures, so during a rotation the old and the new secret both
    work. `timestamp` is the time of this attempt in Unix seconds: receivers refuse a timestamp that
    is five minutes old. Raises SecretRefused for a malformed secret, and ValueError if there is no
    secret, the message id has other characters than letters, digits, `_` and `-`, or the timestamp
    is negative.
    """
    if not secrets:
        raise ValueError("there is no secret to sign with: give at least one")
    # Dots separate the signed parts, so an id with a dot would make the signed text ambiguous.
    if not _MESSAGE_ID.fullmatch(message_id):
        raise ValueError(f"{message_id!r} is not a message id: use letters, digits, _ and -")
    if timestamp < 0:
        raise ValueError(f"timestamp {timestamp} is negative: give Unix seconds")
    signed = b"%s.%d.%s" % (message_id.encode(), timestamp, body)
    return " ".join(f"v1,{_digest(decode_secret(secret), signed)}" for secret in secrets)


def headers(secrets: Sequence[str], message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Returns the three headers of the specification for one attempt.

    The body must be sent byte for byte as signed. The message id must be the same at every
    attempt, because receivers use it to detect duplicates. Raises the errors of `sign`.
    """
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(secrets, message_id, timestamp, body),
    }


def _digest(secret_key: bytes, signed: bytes) -> str:
    return base64.b64encode(hmac.digest(secret_key, signed, hashlib.sha256)).decode()
