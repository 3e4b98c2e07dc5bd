"""Standard Webhooks 1.0.0: how a receiver knows that a webhook is ours, whole and fresh."""

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
SHORTEST_KEY, LONGEST_KEY = 24, 64
"""Bytes, by the specification."""
_MESSAGE_ID = re.compile(r"[A-Za-z0-9_-]{1,200}")


class SecretRefused(ExporterError):
    """A signing secret is not of the form that receivers' libraries read. Its text never quotes
    the secret."""


def new_secret() -> str:
    """A secret that nobody can guess, in the form that receivers' libraries read."""
    return PREFIX + base64.b64encode(token_bytes(32)).decode()


def key(secret: str) -> bytes:
    """The bytes that the secret stands for. Raises SecretRefused, which says what is wrong."""
    form = f"write {PREFIX} and the base64 of {SHORTEST_KEY} to {LONGEST_KEY} random bytes"
    if not secret.startswith(PREFIX):
        raise SecretRefused(f"the signing secret does not begin with {PREFIX}: {form}")
    try:
        found = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise SecretRefused(
            f"what follows {PREFIX} in the signing secret is not standard base64 with its padding: "
            f"{form}"
        ) from None
    if not SHORTEST_KEY <= len(found) <= LONGEST_KEY:
        raise SecretRefused(f"the signing secret stands for {len(found)} bytes: {form}")
    return found


def sign(secrets: Sequence[str], message_id: str, timestamp: int, body: bytes) -> str:
    """One `v1,` signature for each secret, separated by spaces.

    A receiver accepts any one of them, so that during a rotation the old and the new secret both
    work. `timestamp` is of this try, in Unix seconds: receivers refuse one that is five minutes
    old. Raises SecretRefused, and ValueError for an id or time that could be read in two ways.
    """
    if not secrets:
        raise ValueError("a webhook is signed with one secret at least")
    # The parts are signed with dots between them, so an id with a dot could be another message's.
    if not _MESSAGE_ID.fullmatch(message_id):
        raise ValueError(f"{message_id!r} is no message id: use letters, digits, _ and -")
    if timestamp < 0:
        raise ValueError(f"{timestamp} is no time of today: give Unix seconds")
    signed = b"%s.%d.%s" % (message_id.encode(), timestamp, body)
    return " ".join(f"v1,{_digest(key(secret), signed)}" for secret in secrets)


def headers(secrets: Sequence[str], message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers of the specification. The body must be sent as it was signed, byte for
    byte; the id is that of the message, the same at every try. Raises as `sign` does."""
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(secrets, message_id, timestamp, body),
    }


def _digest(secret_key: bytes, signed: bytes) -> str:
    return base64.b64encode(hmac.digest(secret_key, signed, hashlib.sha256)).decode()
